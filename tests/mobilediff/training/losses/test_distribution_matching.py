"""Distribution matching with denoisers whose answer is known."""

import pytest
import torch
from torch import nn

from mobilediff.training.data.latents import Batch
from mobilediff.training.losses.distribution_matching import distribution_matching_loss, fake_score_loss
from tests.generators import generator
from tests.mobilediff.training.denoisers import SaysSample, velocity_to
from tests.mobilediff.training.losses.overfit import overfit


def test_the_gradient_leads_from_the_fake_scores_sample_to_the_teachers():
    samples = Batch(torch.zeros(4, 2, 8, 8, requires_grad=True), torch.arange(4))
    loss = distribution_matching_loss(SaysSample(2.0), SaysSample(-1.0), samples, generator())
    loss.backward()
    # (x_fake - x_teacher) / mean |x - x_teacher| = -3 / 2, over the number of values
    expected = torch.full_like(samples.latents, -1.5 / samples.latents.numel())
    torch.testing.assert_close(samples.latents.grad, expected, rtol=1e-3, atol=1e-6)
    assert loss.item() == pytest.approx(1.5**2 / 2, rel=1e-3)
    same = distribution_matching_loss(SaysSample(2.0), SaysSample(2.0), samples, generator())
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_samples_whose_score_is_known_go_to_the_teachers():
    """The value is normalised and does not fall; the distance to the teacher's sample does."""
    torch.manual_seed(0)
    samples = Batch(torch.randn(4, 2, 8, 8, requires_grad=True), torch.arange(4))

    def own_score(noisy, timesteps, caption_ids):
        return velocity_to(samples.latents, noisy, timesteps)

    def distance() -> float:
        return (samples.latents - 2.0).abs().mean().item()

    before = distance()
    overfit(
        [samples.latents],
        lambda: distribution_matching_loss(SaysSample(2.0), own_score, samples, generator()),
        steps=150,
    )
    assert distance() < before / 4


def test_the_fake_score_learns_the_velocity_of_one_batch():
    class Learner(nn.Sequential):
        def forward(self, noisy, timesteps, caption_ids):
            return super().forward(noisy)

    torch.manual_seed(0)
    samples = Batch(torch.full((4, 2, 8, 8), 0.5), torch.arange(4))
    assert fake_score_loss(SaysSample(0.5), samples, generator()).item() == pytest.approx(0, abs=1e-5)
    learner = Learner(nn.Conv2d(2, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 2, 3, padding=1))
    first, last = overfit(learner.parameters(), lambda: fake_score_loss(learner, samples, generator()), steps=300)
    assert last < first / 4
