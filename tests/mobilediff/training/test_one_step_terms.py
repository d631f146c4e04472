"""The one-step student's losses: distribution matching, the discriminator; and the monitor of a run's samples."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from mobilediff.diffusion import alpha_sigma, any_timesteps, diffuse, trailing_timesteps
from mobilediff.training.data.latents import Batch
from mobilediff.training.data.pairs import batch_sizes, ddim_trajectory_end, draw_intervals
from mobilediff.training.engine.monitor import Monitor
from mobilediff.training.losses.adversarial import Discriminator, make_discriminator
from mobilediff.training.losses.distribution_matching import DistributionMatcher
from mobilediff.training.progressive import distillation_target
from tests.tiny import HIDDEN_SIZE, PROJECTION_DIM, tiny_pipeline, tiny_unet


class Conditioning:
    """Rows of captions as they are; the null prompt is row -1."""

    def __call__(self, caption_ids):
        return {"caption_ids": caption_ids}

    def null_like(self, caption_ids):
        return torch.full_like(caption_ids, -1)


class SaysSample:
    """A denoiser whose prediction of the clean sample is a constant, another one for the null prompt."""

    def __init__(self, value: float, null_value: float = 0.0):
        self.value, self.null_value, self.batches = value, null_value, []

    def __call__(self, noisy, timesteps, caption_ids):
        self.batches.append(len(noisy))
        alpha, sigma = alpha_sigma(timesteps)
        sample = torch.where(caption_ids < 0, self.null_value, self.value)[:, None, None, None]
        return SimpleNamespace(sample=(alpha * noisy - sample) / sigma)


def stand_in_trainer(**options) -> SimpleNamespace:
    updates = []
    return SimpleNamespace(
        device=torch.device("cpu"),
        options=SimpleNamespace(**options),
        autocast=nullcontext,
        frozen=lambda network: network,
        compiled=lambda network: network,
        add=lambda name, network, **_: network,
        update=lambda name, loss: updates.append((name, loss)),
        updates=updates,
    )


def matcher(teacher, fake_score, **options) -> DistributionMatcher:
    defaults = {"guidance_scale": 1.0, "guidance_interval": (0.0, 1.0)}
    trainer = stand_in_trainer(**defaults | {"fake_score_learning_rate": 1.0, "fake_score_updates": 1} | options)
    return DistributionMatcher(trainer, teacher, fake_score, Conditioning())


def test_the_gradient_leads_from_the_followers_sample_to_the_teachers():
    samples = Batch(torch.zeros(4, 2, 8, 8, requires_grad=True), torch.arange(4))
    loss = matcher(SaysSample(2.0), SaysSample(-1.0)).generator_loss(samples, torch.Generator().manual_seed(0))
    loss.backward()
    # (x_follower - x_teacher) / mean |x - x_teacher| = -3 / 2, over the number of values
    expected = torch.full_like(samples.latents, -1.5 / samples.latents.numel())
    torch.testing.assert_close(samples.latents.grad, expected, rtol=1e-3, atol=1e-6)
    assert loss.item() == pytest.approx(1.5**2 / 2, rel=1e-3)

    samples.latents.grad = None
    same = matcher(SaysSample(2.0), SaysSample(2.0)).generator_loss(samples, torch.Generator().manual_seed(0))
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_is_guided_and_the_follower_is_not():
    samples = Batch(torch.zeros(3, 2, 8, 8), torch.arange(3))
    teacher, fake_score = SaysSample(1.0, null_value=0.5), SaysSample(0.0)
    guided = matcher(teacher, fake_score, guidance_scale=3.0)
    loss = guided.generator_loss(samples, torch.Generator().manual_seed(0))
    # 0.5 + 3 (1 - 0.5) = 2: a gradient of -2 / 2
    assert loss.item() == pytest.approx(0.5, rel=1e-3)
    assert teacher.batches == [6] and fake_score.batches == [3]


def test_the_fake_score_learns_the_velocity_of_the_samples():
    right, wrong = SaysSample(0.5), SaysSample(0.0)
    samples = Batch(torch.full((4, 2, 8, 8), 0.5), torch.arange(4))
    for fake_score, updates in ((right, 1), (wrong, 3)):
        made = matcher(SaysSample(0.0), fake_score, fake_score_updates=updates)
        figures = made.train(samples, torch.Generator().manual_seed(0))
        assert [name for name, _ in made.trainer.updates] == ["fake_score"] * updates
        if fake_score is right:
            assert figures["loss_follower"].item() == pytest.approx(0, abs=1e-5)
        else:
            assert figures["loss_follower"].item() > 0.01


def test_pairs_end_where_the_students_remaining_steps_lead():
    """The student calls every clean sample 0.5, so that is where each timestep's sampling ends."""
    latents = torch.randn(1, 6, 2, 8, 8).expand(2, 6, 2, 8, 8)  # mirror images like the images
    data = SimpleNamespace(conditioning=Conditioning(), latents=latents)
    trainer = stand_in_trainer(student_steps=8, num_intervals=4)
    for interval, remaining in enumerate((8, 6, 4, 2)):
        student, images = SaysSample(0.5), torch.arange(6)
        noisy, ends = ddim_trajectory_end(
            student, interval, images, images, data, trainer, torch.Generator().manual_seed(0)
        )
        assert len(student.batches) == remaining
        torch.testing.assert_close(ends, torch.full_like(ends, 0.5), rtol=1e-3, atol=1e-3)
        alpha, sigma = alpha_sigma(torch.tensor([999 - 250 * interval]))
        noise = noisy if interval == 0 else (noisy - alpha * latents[0]) / sigma
        assert noise.std().item() == pytest.approx(1, abs=0.1)
        correlation = torch.corrcoef(torch.stack([noise.flatten(), latents[0].flatten()]))[0, 1]
        assert abs(correlation) < 0.15


def test_pairs_are_spread_over_the_timesteps():
    intervals = draw_intervals(10000, 4, 0.5)
    assert intervals.bincount().tolist() == [6250, 1250, 1250, 1250]
    sizes = batch_sizes(intervals, 250)
    assert sum(size for _, size in sizes) == 10000 and max(size for _, size in sizes) == 250
    assert [interval for interval, _ in sizes] == sorted(interval for interval, _ in sizes)
    assert batch_sizes(draw_intervals(6, 4, 0.5), 250) == [(0, 4), (1, 1), (3, 1)]


def test_the_discriminator_is_the_student_with_one_logit_a_pixel():
    unet = tiny_unet("student-1step")
    network = make_discriminator(unet)
    assert network.config.out_channels == 1
    shared = {name: value for name, value in unet.state_dict().items() if not name.startswith("conv_out.")}
    assert shared and all(torch.equal(network.state_dict()[name], value) for name, value in shared.items())


def test_the_critic_wants_real_above_fake_and_the_generator_the_contrary():
    pipeline = tiny_pipeline("student-1step")
    trainer = stand_in_trainer(
        discriminator_learning_rate=1.0, discriminator_betas=(0.5, 0.99), r1_deviation=0.05, lambda_r1=0.5
    )

    def conditioning(caption_ids):
        return {
            "encoder_hidden_states": torch.zeros(len(caption_ids), 4, HIDDEN_SIZE),
            "class_labels": torch.zeros(len(caption_ids), PROJECTION_DIM),
        }

    discriminator = Discriminator(trainer, pipeline.unet, conditioning)
    times, caption_ids = torch.tensor([-1, 249, 749]), torch.arange(3)
    real, fake = (Batch(torch.randn(3, 4, 16, 16), caption_ids) for _ in range(2))
    figures = discriminator.train(real, fake, times, torch.Generator().manual_seed(0))
    (name, loss), *_ = trainer.updates
    assert name == "discriminator"
    assert loss.item() == pytest.approx(figures["loss_discriminator"].item() + 0.5 * figures["loss_r1"].item())
    assert 0 <= figures["real_share"] <= 1 and 0 <= figures["fake_share"] <= 1

    with torch.no_grad():  # one that calls everything real
        discriminator.network.conv_out.weight.zero_()
        discriminator.network.conv_out.bias.fill_(10.0)
    fake.latents.requires_grad_()
    fooled = discriminator.generator_loss(fake, times, torch.Generator().manual_seed(0))
    assert fooled.item() == pytest.approx(0, abs=1e-3)
    assert all(parameter.requires_grad for parameter in discriminator.network.parameters())
    fooled.backward()
    assert all(parameter.grad is None for parameter in discriminator.network.parameters())
    figures = discriminator.train(real, fake, times, torch.Generator().manual_seed(0))
    assert figures["real_share"] == 1 and figures["fake_share"] == 0


def linear_critic(**options) -> Discriminator:
    """A discriminator whose logit of each pixel is the sum of its channels, whatever the time and the caption."""
    trainer = stand_in_trainer(discriminator_learning_rate=1.0, discriminator_betas=(0.5, 0.99), **options)
    discriminator = Discriminator(
        trainer, tiny_unet("student-1step"), lambda caption_ids: {"caption_ids": caption_ids}
    )

    class Sum(torch.nn.Module):
        def forward(self, noisy, timesteps, caption_ids):
            return SimpleNamespace(sample=noisy.sum(1, keepdim=True))

    discriminator.network = discriminator.module = discriminator.bare = Sum()
    return discriminator


def test_the_penalty_estimates_the_squared_gradient_whatever_the_deviation():
    caption_ids = torch.arange(4000)
    real, fake = (Batch(torch.randn(4000, 2, 4, 4), caption_ids) for _ in range(2))
    for deviation in (0.05, 0.5):
        discriminator = linear_critic(r1_deviation=deviation, lambda_r1=1.0)
        figures = discriminator.train(real, fake, torch.full_like(caption_ids, 500), torch.Generator().manual_seed(0))
        # the mean of 16 logits has the gradient 1 / 16 in each of 32 values
        assert figures["loss_r1"].item() == pytest.approx(32 / 16**2, rel=0.1)


def test_without_a_weight_there_is_no_penalty():
    discriminator, caption_ids = linear_critic(r1_deviation=0.05, lambda_r1=0.0), torch.arange(3)
    real, fake = (Batch(torch.full((3, 2, 4, 4), value), caption_ids) for value in (9.0, -9.0))
    figures = discriminator.train(real, fake, torch.full_like(caption_ids, 500), torch.Generator().manual_seed(0))
    assert "loss_r1" not in figures and discriminator.trainer.updates[0][1] is figures["loss_discriminator"]
    assert figures["real_share"] == 1 and figures["fake_share"] == 1


def test_timesteps_are_drawn_from_the_interval():
    drawn = any_timesteps(5000, (0.02, 0.6), torch.Generator().manual_seed(0), torch.device("cpu"))
    assert drawn.min() == 20 and drawn.max() == 599 and drawn.float().mean() == pytest.approx(310, abs=10)


def test_a_step_along_the_adversarial_gradient_raises_the_logits():
    discriminator, caption_ids = linear_critic(), torch.arange(3)
    fake = Batch(torch.zeros(3, 2, 4, 4, requires_grad=True), caption_ids)
    discriminator.generator_loss(fake, torch.tensor([100, 500, 900]), torch.Generator().manual_seed(0)).backward()
    assert (fake.latents.grad < 0).all()


def test_the_target_is_where_the_teachers_steps_lead():
    """A teacher that always sees one sample leads to it, in as many steps as it takes."""
    caption_ids = torch.arange(4)
    timesteps = trailing_timesteps(32, torch.device("cpu"))
    z = diffuse(torch.randn(4, 2, 8, 8), timesteps[caption_ids * 8], torch.Generator().manual_seed(0))
    for steps in (1, 2, 8):
        teacher = SaysSample(0.5)
        target = distillation_target(
            lambda noisy, timesteps, teacher=teacher: teacher(noisy, timesteps, caption_ids).sample,
            z,
            [timesteps[caption_ids * 8 + place] for place in range(steps + 1)],
        )
        assert len(teacher.batches) == steps
        torch.testing.assert_close(target, torch.full_like(target, 0.5), rtol=1e-3, atol=1e-3)
    x = torch.randn(4, 2, 8, 8)  # a step of a teacher that is right leads to what it predicts
    target = distillation_target(
        lambda noisy, t: (alpha_sigma(t)[0] * noisy - x) / alpha_sigma(t)[1],
        z,
        [timesteps[caption_ids * 8], timesteps[caption_ids * 8 + 1]],
    )
    torch.testing.assert_close(target, x, rtol=1e-3, atol=1e-3)


def test_the_monitor_measures_the_same_samples_every_time():
    pipeline = tiny_pipeline("student-1step")
    monitor = Monitor(260, torch.device("cpu"))
    with torch.no_grad():
        figures = monitor(pipeline)
        assert figures == monitor(pipeline)
        assert set(figures) == {"distance", "class_accuracy", "recall", "seed_distance"}
        assert figures["distance"] > 10 and figures["seed_distance"] > 0
        pipeline.vae.decoder.conv_out.weight.zero_()  # one image, whatever the seed
        collapsed = monitor(pipeline)
    assert collapsed["seed_distance"] == pytest.approx(0, abs=1e-6) and collapsed["recall"] == 0
    assert collapsed["distance"] > figures["distance"]
