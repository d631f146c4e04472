"""Properties of the diffusion's maths that hold at every timestep."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilediff.diffusion import (
    add_noise,
    alpha_sigma,
    ddim_step,
    diffuse,
    guidance_scales,
    guided,
    sample_from_velocity,
    trailing_timesteps,
    velocity,
)

CPU = torch.device("cpu")
few = settings(derandomize=True, max_examples=20, deadline=None, database=None)
seeds = st.integers(0, 2**31)
timesteps = st.lists(st.integers(-1, 999), min_size=3, max_size=3).map(torch.tensor)


def draws(seed, count=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4, 2, 2, generator=generator) for _ in range(count)]


@few
@given(seeds, timesteps)
def test_velocity_gives_back_sample_and_noise(seed, t):
    latents, noise = draws(seed)
    alpha, sigma = alpha_sigma(t)
    noisy, v = add_noise(latents, noise, alpha, sigma), velocity(latents, noise, alpha, sigma)
    torch.testing.assert_close(sample_from_velocity(noisy, v, alpha, sigma), latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sigma * noisy + alpha * v, noise, rtol=1e-4, atol=1e-5)


@few
@given(timesteps)
def test_alpha_and_sigma_lie_on_the_unit_circle(t):
    alpha, sigma = alpha_sigma(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(3, 1, 1, 1))


@few
@given(seeds, timesteps)
def test_ddim_step_to_its_own_timestep_is_the_identity(seed, t):
    noisy, v = draws(seed)
    alpha, sigma = alpha_sigma(t)
    torch.testing.assert_close(ddim_step(noisy, v, alpha, sigma, alpha, sigma), noisy, rtol=1e-4, atol=1e-5)


@few
@given(seeds, timesteps, timesteps)
def test_ddim_step_with_the_true_velocity_stays_on_the_path(seed, t, s):
    latents, noise = draws(seed)
    here, there = alpha_sigma(t), alpha_sigma(s)
    stepped = ddim_step(add_noise(latents, noise, *here), velocity(latents, noise, *here), *here, *there)
    torch.testing.assert_close(stepped, add_noise(latents, noise, *there), rtol=1e-4, atol=1e-5)


@few
@given(seeds, timesteps)
def test_diffused_latents_step_back_to_the_clean_end(seed, t):
    (latents,) = draws(seed, 1)
    diffused = diffuse(latents, t, torch.Generator().manual_seed(seed))
    clean = alpha_sigma(torch.full((3,), -1))
    stepped = ddim_step(diffused.noisy, diffused.velocity, diffused.alpha, diffused.sigma, *clean)
    torch.testing.assert_close(stepped, latents, rtol=1e-4, atol=1e-5)


@few
@given(seeds, st.floats(-2, 10))
def test_guidance_at_1_is_the_conditional_at_0_the_unconditional(seed, scale):
    conditional, unconditional = draws(seed)
    torch.testing.assert_close(guided(conditional, unconditional, 1.0), conditional, rtol=1e-5, atol=1e-6)
    assert torch.equal(guided(conditional, unconditional, 0.0), unconditional)
    assert torch.equal(guided(conditional, conditional, scale), conditional)


@few
@given(st.floats(0, 1), st.floats(0, 1), st.floats(1, 10))
def test_guidance_scales_apply_inside_the_interval_only(one, other, scale):
    interval = (min(one, other), max(one, other))
    fractions = torch.linspace(0, 1, 11, dtype=torch.float64)
    scales = guidance_scales(fractions, scale, interval).flatten().tolist()
    for fraction, found in zip(fractions.tolist(), scales, strict=True):
        expected = scale if interval[0] <= fraction <= interval[1] else 1.0
        assert abs(found - expected) < 1e-5


@few
@given(st.integers(1, 1000))
def test_trailing_timesteps_descend_from_noise_to_the_clean_end(num_steps):
    t = trailing_timesteps(num_steps, CPU)
    assert t.shape == (num_steps + 1,) and t[0] == 999 and t[-1] == -1 and (t.diff() < 0).all()
