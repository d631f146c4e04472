"""The adversarial losses of noised latents."""

import pytest
import torch
from torch import nn

from mobilediff.training.data.conditioning import ConditionedNetwork
from mobilediff.training.data.latents import Batch
from mobilediff.training.losses.adversarial import discriminator_loss, generator_loss, make_discriminator, noised
from tests.generators import generator
from tests.mobilediff.training.losses.overfit import overfit
from tests.tiny import HIDDEN_SIZE, PROJECTION_DIM, tiny_unet

NO_PENALTY = {"lambda_r1": 0.0, "r1_deviation": 0.05}


class Sum(nn.Module):
    """The logit of each pixel is the sum of its channels, whatever the time and the caption."""

    def forward(self, noisy, timesteps, caption_ids):
        assert (timesteps >= 0).all()
        return noisy.sum(1, keepdim=True)


class Convolutions(nn.Sequential):
    """Logits of latents of two channels, whatever the time and the caption."""

    def __init__(self):
        super().__init__(nn.Conv2d(2, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 3, padding=1))

    def forward(self, noisy, timesteps, caption_ids):
        return super().forward(noisy)


def batches(count: int = 8) -> tuple[Batch, Batch]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        Batch(scale * torch.randn(count, 2, 8, 8, generator=generator), torch.arange(count)) for scale in (1.5, 0.5)
    )


def test_a_discriminator_that_sees_one_batch_tells_it_apart():
    torch.manual_seed(0)
    discriminator, (real, fake), timesteps = Convolutions(), batches(), torch.full((8,), 100)
    first, last = overfit(
        discriminator.parameters(),
        lambda: discriminator_loss(discriminator, real, fake, timesteps, generator(), **NO_PENALTY)[0],
    )
    assert last < first / 4
    figures = discriminator_loss(discriminator, real, fake, timesteps, generator(), **NO_PENALTY)[1]
    assert figures["real_fraction"] > 0.9 and figures["fake_fraction"] > 0.9


def test_samples_that_see_one_discriminator_fool_it():
    torch.manual_seed(0)
    discriminator, (_, fake), timesteps = Convolutions(), batches(), torch.full((8,), 100)
    fake.latents.requires_grad_()
    first, last = overfit(
        [fake.latents], lambda: generator_loss(discriminator, fake, timesteps, generator()), learning_rate=0.2
    )
    assert last < first / 4


def test_a_step_along_the_generators_gradient_raises_the_logits():
    fake = Batch(torch.zeros(3, 2, 4, 4, requires_grad=True), torch.arange(3))
    generator_loss(Sum(), fake, torch.tensor([100, 500, 900]), generator()).backward()
    assert (fake.latents.grad < 0).all()


def test_a_step_along_the_discriminators_gradient_parts_real_from_fake():
    torch.manual_seed(0)
    discriminator, (real, fake), timesteps = Convolutions(), batches(), torch.full((8,), 100)

    def gap() -> float:
        logits = [
            discriminator(noised(batch.latents, timesteps, generator()), timesteps, batch.caption_ids).mean()
            for batch in (real, fake)
        ]
        return (logits[0] - logits[1]).item()

    before = gap()
    discriminator_loss(discriminator, real, fake, timesteps, generator(), **NO_PENALTY)[0].backward()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter -= 0.1 * parameter.grad
    assert gap() > before


def test_the_discriminator_is_the_student_with_one_logit_a_pixel():
    unet = tiny_unet("student-1step")
    network = make_discriminator(unet)
    assert network.config.out_channels == 1
    shared = {name: value for name, value in unet.state_dict().items() if not name.startswith("conv_out.")}
    assert shared and all(torch.equal(network.state_dict()[name], value) for name, value in shared.items())


def test_the_students_network_is_trained_by_one_loss_and_left_alone_by_the_other():
    def conditioning(caption_ids):
        return {
            "encoder_hidden_states": torch.zeros(len(caption_ids), 4, HIDDEN_SIZE),
            "class_labels": torch.zeros(len(caption_ids), PROJECTION_DIM),
        }

    network = make_discriminator(tiny_unet("student-1step"))
    discriminator = ConditionedNetwork(network, conditioning)
    times, caption_ids = torch.tensor([-1, 249, 749]), torch.arange(3)
    real, fake = (Batch(torch.randn(3, 4, 16, 16), caption_ids) for _ in range(2))
    loss, figures = discriminator_loss(discriminator, real, fake, times, generator(), lambda_r1=0.5, r1_deviation=0.05)
    assert loss.item() == pytest.approx(figures["loss_discriminator"].item() + 0.5 * figures["loss_r1"].item())
    assert 0 <= figures["real_fraction"] <= 1 and 0 <= figures["fake_fraction"] <= 1
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.conv_out.parameters())

    network.zero_grad()
    with torch.no_grad():  # one that calls everything real
        network.conv_out.weight.zero_()
        network.conv_out.bias.fill_(10.0)
    fake.latents.requires_grad_()
    fooled = generator_loss(discriminator, fake, times, generator())
    assert fooled.item() == pytest.approx(0, abs=1e-3)
    assert all(parameter.requires_grad for parameter in network.parameters())
    fooled.backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    figures = discriminator_loss(discriminator, real, fake, times, generator(), **NO_PENALTY)[1]
    assert figures["real_fraction"] == 1 and figures["fake_fraction"] == 0


def test_the_penalty_estimates_the_squared_gradient_whatever_the_deviation():
    caption_ids = torch.arange(4000)
    real, fake = (Batch(torch.randn(4000, 2, 4, 4), caption_ids) for _ in range(2))
    for deviation in (0.05, 0.5):
        figures = discriminator_loss(
            Sum(), real, fake, torch.full_like(caption_ids, 500), generator(), lambda_r1=1.0, r1_deviation=deviation
        )[1]
        # the mean of 16 logits has the gradient 1 / 16 in each of 32 values
        assert figures["loss_r1"].item() == pytest.approx(32 / 16**2, rel=0.1)


def test_without_a_weight_there_is_no_penalty():
    caption_ids = torch.arange(3)
    real, fake = (Batch(torch.full((3, 2, 4, 4), value), caption_ids) for value in (9.0, -9.0))
    loss, figures = discriminator_loss(Sum(), real, fake, torch.full_like(caption_ids, 500), generator(), **NO_PENALTY)
    assert "loss_r1" not in figures and loss is figures["loss_discriminator"]
    assert figures["real_fraction"] == 1 and figures["fake_fraction"] == 1
