"""Compute the diffusion: schedule, forward process, v, DDIM steps, guidance."""

# Legend, symbol -> name
#   x        latents, the clean sample
#   eps      noise
#   z_t      noisy = alpha_t x + sigma_t eps
#   v        alpha_t eps - sigma_t x (arXiv 2202.00512, section 4)
#   alpha_t  sqrt(alphas_cumprod[t]), sigma_t = sqrt(1 - alphas_cumprod[t])
# On the straight path of flow matching (arXiv 2210.02747) alpha_t = 1 - sigma_t, and the velocity is eps - x.
# Shapes: latents, noise and v are [B, C, H, W]; timesteps [B]; alpha and sigma [B, 1, 1, 1].

from dataclasses import dataclass
from functools import cache

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

NUM_TRAIN_TIMESTEPS = 1000
# Of the schedulers of all checkpoints that are distilled from.
FORWARD_PROCESS = {
    "prediction_type": "v_prediction",
    "beta_schedule": "squaredcos_cap_v2",
    "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
}


def noise_scheduler() -> DDIMScheduler:
    """Make the family's scheduler: cosine schedule (arXiv 2102.09672), v-prediction, trailing timesteps."""
    return DDIMScheduler(
        **FORWARD_PROCESS,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


@cache
def alphas_cumprod(device: torch.device) -> torch.Tensor:
    """Look up the product of (1 - beta) up to each timestep of `noise_scheduler`.

    Built once for each device.

    Returns:
        float32 [1000].
    """
    return noise_scheduler().alphas_cumprod.to(device)


def flow_scheduler() -> DPMSolverMultistepScheduler:
    """Make the scheduler of flow matching (arXiv 2210.02747), with trailing timesteps."""
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, timestep_spacing="trailing"
    )


def trailing_timesteps(num_steps: int, device: torch.device) -> torch.Tensor:
    """Space timesteps evenly from 999 downwards, then -1 for the clean end.

    Returns:
        int64 [num_steps + 1].
    """
    remaining = torch.arange(num_steps, -1, -1, device=device, dtype=torch.float64) / num_steps
    return (remaining * NUM_TRAIN_TIMESTEPS).round().long() - 1


def any_timesteps(
    count: int, interval: tuple[float, float], generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Draw timesteps evenly from an interval.

    Args:
        count: of timesteps.
        interval: its ends, as fractions of the diffusion, 0 (clean) to 1 (noise).
        generator: on `device`.
        device: of the result.

    Returns:
        int64 [count].
    """
    low, high = (round(fraction * NUM_TRAIN_TIMESTEPS) for fraction in interval)
    return torch.randint(low, high, (count,), generator=generator, device=device)


def alpha_sigma(timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Look up alpha_t and sigma_t of timesteps.

    Args:
        timesteps: int64 [B]; below 0 is the clean end, where alpha is 1.

    Returns:
        alpha_t and sigma_t, float32 [B, 1, 1, 1] each.
    """
    values = alphas_cumprod(timesteps.device)[timesteps.clamp(min=0)]
    values = torch.where(timesteps < 0, torch.ones_like(values), values)[:, None, None, None]
    return values.sqrt(), (1 - values).sqrt()


def add_noise(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Compute z_t = alpha_t x + sigma_t eps, a draw from q(z_t | x).

    Args:
        latents, noise: x and eps, [B, C, H, W].
        alpha, sigma: [B, 1, 1, 1].

    Returns:
        [B, C, H, W].
    """
    return alpha * latents + sigma * noise


def velocity(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Compute v = alpha_t eps - sigma_t x (arXiv 2202.00512, section 4).

    Args:
        latents, noise: x and eps, [B, C, H, W].
        alpha, sigma: [B, 1, 1, 1].

    Returns:
        [B, C, H, W].
    """
    return alpha * noise - sigma * latents


@dataclass
class Diffused:
    """Hold latents that were taken to timesteps.

    Attributes:
        noisy: z_t, [B, C, H, W].
        velocity: v there, on a straight path eps - x; [B, C, H, W].
        alpha, sigma: alpha_t and sigma_t, [B, 1, 1, 1].
    """

    noisy: torch.Tensor
    velocity: torch.Tensor
    alpha: torch.Tensor
    sigma: torch.Tensor


def diffuse_straight(latents: torch.Tensor, times: torch.Tensor, generator: torch.Generator) -> Diffused:
    """Draw noise for latents and take them towards it along straight lines (arXiv 2210.02747).

    Args:
        latents: [B, C, H, W].
        times: 0 (clean) to 1 (noise), [B].
        generator: of the noise.
    """
    noise, sigma = torch.empty_like(latents).normal_(generator=generator), times[:, None, None, None]
    return Diffused(add_noise(latents, noise, 1 - sigma, sigma), noise - latents, 1 - sigma, sigma)


def diffuse(latents: torch.Tensor, timesteps: torch.Tensor, generator: torch.Generator) -> Diffused:
    """Draw noise for latents and take them to their timesteps.

    Args:
        latents: [B, C, H, W].
        timesteps: int64 [B].
        generator: of the noise.
    """
    noise = torch.empty_like(latents).normal_(generator=generator)
    alpha, sigma = alpha_sigma(timesteps)
    noisy = add_noise(latents, noise, alpha, sigma)
    return Diffused(noisy, velocity(latents, noise, alpha, sigma), alpha, sigma)


def sample_from_velocity(
    noisy: torch.Tensor, v: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Compute x = alpha_t z_t - sigma_t v.

    Args:
        noisy, v: [B, C, H, W].
        alpha, sigma: [B, 1, 1, 1].

    Returns:
        [B, C, H, W].
    """
    return alpha * noisy - sigma * v


def ddim_step(
    noisy: torch.Tensor,
    v: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    next_alpha: torch.Tensor,
    next_sigma: torch.Tensor,
) -> torch.Tensor:
    """Take one deterministic DDIM step from z_t to z_s.

    z_s = alpha_s x + sigma_s eps, with x and eps as v implies them (arXiv 2202.00512, eq. 3).

    Args:
        noisy, v: z_t and v, [B, C, H, W].
        alpha, sigma: of t, [B, 1, 1, 1].
        next_alpha, next_sigma: of s, [B, 1, 1, 1].

    Returns:
        [B, C, H, W].
    """
    x = sample_from_velocity(noisy, v, alpha, sigma)
    eps = sigma * noisy + alpha * v
    return next_alpha * x + next_sigma * eps


def guided(conditional: torch.Tensor, unconditional: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Guide an output without a classifier: unconditional + scale (conditional - unconditional).

    Source: arXiv 2207.12598, eq. 6, with its w = scale - 1.

    Args:
        conditional, unconditional: the network's outputs, [B, C, H, W].
        scale: a number or [B, 1, 1, 1]; 1 returns the conditional output.

    Returns:
        [B, C, H, W].
    """
    return unconditional + scale * (conditional - unconditional)


def guidance_scales(fractions: torch.Tensor, scale: float, interval: tuple[float, float]) -> torch.Tensor:
    """Set the guidance scale inside the interval, and 1 outside it (arXiv 2404.07724, eq. 3).

    Args:
        fractions: of the timesteps, 0 (clean) to 1 (noise), [B].
        scale: of guidance.
        interval: the fractions between which it applies, both included.

    Returns:
        [B, 1, 1, 1].
    """
    low, high = interval
    return torch.where((fractions >= low) & (fractions <= high), scale, 1.0)[:, None, None, None]


def progressive_target(
    noisy: torch.Tensor,
    trajectory_end: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    end_alpha: torch.Tensor,
    end_sigma: torch.Tensor,
) -> torch.Tensor:
    """Compute the x with which one DDIM step reaches `trajectory_end`.

    x = (z_t'' - (sigma_t'' / sigma_t) z_t) / (alpha_t'' - (sigma_t'' / sigma_t) alpha_t), where z_t'' is the end of
    the teacher's steps (arXiv 2202.00512, algorithm 2).

    Args:
        noisy: z_t, where the steps start, [B, C, H, W].
        trajectory_end: z_t'', [B, C, H, W].
        alpha, sigma: of t, [B, 1, 1, 1].
        end_alpha, end_sigma: of t'', [B, 1, 1, 1].

    Returns:
        [B, C, H, W].
    """
    ratio = end_sigma / sigma
    return (trajectory_end - ratio * noisy) / (end_alpha - ratio * alpha)
