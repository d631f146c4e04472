"""The diffusion's maths: schedule, forward process, what a network predicts, DDIM, guidance."""

# Legend, symbol -> name
#   x        latents, the clean sample
#   eps      noise
#   z_t      noisy = alpha_t x + sigma_t eps
#   v        alpha_t eps - sigma_t x (arXiv 2202.00512, section 4)
#   alpha_t  sqrt(alphas_cumprod[t]), sigma_t = sqrt(1 - alphas_cumprod[t])
# On the straight path of flow matching (arXiv 2210.02747) alpha_t = 1 - sigma_t, and the velocity is eps - x.

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
    """The family's forward process: cosine schedule (arXiv 2102.09672), v-prediction, trailing timesteps."""
    return DDIMScheduler(
        **FORWARD_PROCESS,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


@cache
def alphas_cumprod(device: torch.device) -> torch.Tensor:
    """The product of (1 - beta) up to each timestep of `noise_scheduler`, float32 [1000]; built once a device."""
    return noise_scheduler().alphas_cumprod.to(device)


def flow_scheduler() -> DPMSolverMultistepScheduler:
    """Flow matching's forward process."""
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, timestep_spacing="trailing"
    )


def trailing_timesteps(num_steps: int, device: torch.device) -> torch.Tensor:
    """Timesteps of a trailing schedule from 999 downwards, then -1 for the clean end, int64 [num_steps + 1]."""
    remaining = torch.arange(num_steps, -1, -1, device=device, dtype=torch.float64) / num_steps
    return (remaining * NUM_TRAIN_TIMESTEPS).round().long() - 1


def any_timesteps(
    count: int, interval: tuple[float, float], generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Draw timesteps evenly from an interval, given by fractions of the diffusion; int64 [count]."""
    low, high = (round(fraction * NUM_TRAIN_TIMESTEPS) for fraction in interval)
    return torch.randint(low, high, (count,), generator=generator, device=device)


def alpha_sigma(timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha_t and sigma_t of timesteps [B], each [B, 1, 1, 1]; below 0 is the clean end, where alpha is 1."""
    values = alphas_cumprod(timesteps.device)[timesteps.clamp(min=0)]
    values = torch.where(timesteps < 0, torch.ones_like(values), values)[:, None, None, None]
    return values.sqrt(), (1 - values).sqrt()


def add_noise(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """z_t, a draw from q(z_t | x)."""
    return alpha * latents + sigma * noise


def velocity(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """v of a clean sample and its noise."""
    return alpha * noise - sigma * latents


@dataclass
class Diffused:
    """Latents at a timestep each: z_t as `noisy`, the path's velocity there, and alpha_t and sigma_t, [B, 1, 1, 1]."""

    noisy: torch.Tensor
    velocity: torch.Tensor
    alpha: torch.Tensor
    sigma: torch.Tensor


def diffuse_straight(latents: torch.Tensor, times: torch.Tensor, generator: torch.Generator) -> Diffused:
    """Take latents [B, C, H, W] along straight lines to noise, to times [B] from 0 to 1 (arXiv 2210.02747)."""
    noise, sigma = torch.empty_like(latents).normal_(generator=generator), times[:, None, None, None]
    return Diffused(add_noise(latents, noise, 1 - sigma, sigma), noise - latents, 1 - sigma, sigma)


def diffuse(latents: torch.Tensor, timesteps: torch.Tensor, generator: torch.Generator) -> Diffused:
    """Draw noise for latents [B, C, H, W] and take them to their timesteps [B]."""
    noise = torch.empty_like(latents).normal_(generator=generator)
    alpha, sigma = alpha_sigma(timesteps)
    noisy = add_noise(latents, noise, alpha, sigma)
    return Diffused(noisy, velocity(latents, noise, alpha, sigma), alpha, sigma)


def sample_from_velocity(
    noisy: torch.Tensor, v: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """x = alpha_t z_t - sigma_t v."""
    return alpha * noisy - sigma * v


def ddim_step(
    noisy: torch.Tensor,
    v: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    next_alpha: torch.Tensor,
    next_sigma: torch.Tensor,
) -> torch.Tensor:
    """One deterministic DDIM step (arXiv 2202.00512, eq. 3): z_s = alpha_s x + sigma_s eps, both implied by v."""
    x = sample_from_velocity(noisy, v, alpha, sigma)
    eps = sigma * noisy + alpha * v
    return next_alpha * x + next_sigma * eps


def guided(conditional: torch.Tensor, unconditional: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598): unconditional + scale (conditional - unconditional)."""
    return unconditional + scale * (conditional - unconditional)


def guidance_scales(fractions: torch.Tensor, scale: float, interval: tuple[float, float]) -> torch.Tensor:
    """The scale inside the interval, both ends included, and 1 outside (arXiv 2404.07724, eq. 3).

    Args:
        fractions: of the timesteps, 0 (clean) to 1 (noise), [B].
        scale: of guidance.
        interval: from where to where it applies.

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
    """The x with which one DDIM step reaches `trajectory_end`, where the teacher's steps ended.

    Source: arXiv 2202.00512, algorithm 2.

    x = (z_t'' - (sigma_t'' / sigma_t) z_t) / (alpha_t'' - (sigma_t'' / sigma_t) alpha_t).
    """
    ratio = end_sigma / sigma
    return (trajectory_end - ratio * noisy) / (end_alpha - ratio * alpha)
