"""The generators' losses against hand-computed cases and against diffusers."""

import pytest
import torch

from mobilediff.diffusion import (
    add_noise,
    alpha_sigma,
    any_timesteps,
    ddim_step,
    diffuse_straight,
    guidance_scales,
    guided,
    noise_scheduler,
    progressive_target,
    sample_from_velocity,
    trailing_timesteps,
    velocity,
)
from mobilediff.schedulers.distilled_ddim import DistilledDDIMScheduler
from mobilediff.training.losses.distillation import feature_loss, truncated_snr_loss

SCHEDULER = noise_scheduler()


def exact_alpha_sigma(timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`alpha_sigma` in float64, with squares that add up to 1."""
    alpha = alpha_sigma(timesteps)[0].double()
    return alpha, (1 - alpha.square()).sqrt()


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 4, 4, generator=generator, dtype=torch.float64)
    timesteps = torch.tensor([10, 500, 998])
    alpha, sigma = exact_alpha_sigma(timesteps)
    return latents, noise, timesteps, alpha, sigma


def test_forward_process_is_that_of_diffusers(drawn):
    latents, noise, timesteps, alpha, sigma = drawn
    expected = SCHEDULER.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(add_noise(latents, noise, alpha, sigma), expected, rtol=1e-5, atol=1e-5)
    expected = SCHEDULER.get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(velocity(latents, noise, alpha, sigma), expected, rtol=1e-5, atol=1e-5)


def test_velocity_gives_the_sample_back(drawn):
    latents, noise, _, alpha, sigma = drawn
    noisy = add_noise(latents, noise, alpha, sigma)
    v = velocity(latents, noise, alpha, sigma)
    torch.testing.assert_close(sample_from_velocity(noisy, v, alpha, sigma), latents)


def test_the_clean_end_is_alpha_1():
    alpha, sigma = alpha_sigma(torch.tensor([-1, 0]))
    assert alpha.flatten().tolist()[0] == 1.0
    assert sigma.flatten().tolist()[0] == 0.0
    assert alpha.flatten().tolist()[1] < 1.0


def test_ddim_steps_and_grid_are_those_of_the_scheduler():
    scheduler = DistilledDDIMScheduler(distilled_num_inference_steps=[8])
    scheduler.set_timesteps(8)
    grid = trailing_timesteps(8, torch.device("cpu"))
    assert grid[:-1].tolist() == scheduler.timesteps.tolist()
    assert grid[-1] == -1
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 4, 4, generator=generator)
    for t, next_t in zip(grid[:-1], grid[1:], strict=True):
        v = torch.randn(latents.shape, generator=generator)
        here = alpha_sigma(t[None])
        there = alpha_sigma(next_t[None])
        ours = ddim_step(latents, v, *here, *there)
        latents = scheduler.step(v, t, latents).prev_sample
        torch.testing.assert_close(ours, latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_one_step_to_the_progressive_target_ends_where_the_teachers_steps_did(count):
    grid = trailing_timesteps(16, torch.device("cpu"))
    generator = torch.Generator().manual_seed(2)
    for start in range(0, 16, count):
        places = [exact_alpha_sigma(grid[start + i][None]) for i in range(count + 1)]
        noisy = end = torch.randn(1, 4, 4, 4, generator=generator, dtype=torch.float64)
        for here, there in zip(places, places[1:], strict=False):
            v_teacher = torch.randn(noisy.shape, generator=generator, dtype=torch.float64)
            end = ddim_step(end, v_teacher, *here, *there)
        target = progressive_target(noisy, end, *places[0], *places[-1])
        alpha, sigma = places[0]
        v = (alpha * noisy - target) / sigma  # the velocity whose sample is the target
        if count == 1:
            torch.testing.assert_close(v, v_teacher)
        torch.testing.assert_close(ddim_step(noisy, v, alpha, sigma, *places[-1]), end, rtol=1e-6, atol=1e-6)


def test_truncated_snr_weight_is_max_of_snr_and_1():
    alpha, sigma = torch.tensor([0.9, 0.1]).sqrt().view(2, 1, 1, 1), torch.tensor([0.1, 0.9]).sqrt().view(2, 1, 1, 1)
    error = torch.ones(2, 1, 2, 2)
    # SNR 9 and 1/9: weights 9 and 1, squared errors 1
    assert truncated_snr_loss(error, torch.zeros_like(error), alpha, sigma).item() == pytest.approx(5.0, rel=1e-5)


def test_guidance_of_1_is_the_conditional_prediction():
    conditional, unconditional = torch.tensor([2.0]), torch.tensor([0.5])
    assert guided(conditional, unconditional, 1.0).item() == 2.0
    assert guided(conditional, unconditional, 3.0).item() == 5.0


def test_feature_loss_does_not_depend_on_the_scale_of_a_stage():
    generator = torch.Generator().manual_seed(3)
    teacher = [torch.randn(2, 4, 3, 3, generator=generator) for _ in range(3)]
    student = [feature + 0.1 for feature in teacher]
    scaled = feature_loss([student[0] * 100, *student[1:]], [teacher[0] * 100, *teacher[1:]])
    assert scaled.item() == pytest.approx(feature_loss(student, teacher).item(), rel=1e-5)


def test_guidance_applies_inside_its_interval():
    scales = guidance_scales(torch.tensor([0.0, 0.2, 0.5, 0.7, 0.999]), 3.0, (0.2, 0.7))
    assert scales.shape == (5, 1, 1, 1) and scales.flatten().tolist() == [1, 3, 3, 3, 1]
    assert guidance_scales(torch.tensor([0.0, 0.999]), 3.0, (0.0, 1.0)).flatten().tolist() == [3, 3]


def test_the_straight_path_leads_from_the_latents_to_noise(drawn):
    latents = drawn[0]
    times = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    z = diffuse_straight(latents, times, torch.Generator().manual_seed(3))
    noise = torch.empty_like(latents).normal_(generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(z.noisy[0], latents[0])
    torch.testing.assert_close(z.noisy[2], noise[2])
    torch.testing.assert_close(z.noisy + (1 - z.sigma) * z.velocity, noise)
    torch.testing.assert_close(z.noisy - z.sigma * z.velocity, latents)


def test_timesteps_are_drawn_from_the_interval():
    drawn = any_timesteps(5000, (0.02, 0.6), torch.Generator().manual_seed(0), torch.device("cpu"))
    assert drawn.min() == 20 and drawn.max() == 599 and drawn.float().mean() == pytest.approx(310, abs=10)
