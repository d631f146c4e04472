"""Loss terms of the generators, one function each."""

# Legend, symbol -> name
#   x        latents, the clean sample
#   eps      noise
#   z_t      noisy = alpha_t x + sigma_t eps
#   v        alpha_t eps - sigma_t x (arXiv 2202.00512, section 4)
#   alpha_t  sqrt(alphas_cumprod[t]), sigma_t = sqrt(1 - alphas_cumprod[t])
# On the straight path of flow matching (arXiv 2210.02747) alpha_t = 1 - sigma_t, and the velocity is eps - x.

from dataclasses import dataclass

import torch
import torch.nn.functional as F


def alpha_sigma(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha_t and sigma_t, each [B, 1, 1, 1]; a timestep below 0 is the clean end, where alpha is 1."""
    values = alphas_cumprod.to(timesteps.device)[timesteps.clamp(min=0)]
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


def diffuse(
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    generator: torch.Generator,
) -> Diffused:
    """Draw noise for latents [B, C, H, W] and take them to their timesteps [B]."""
    noise = torch.empty_like(latents).normal_(generator=generator)
    alpha, sigma = alpha_sigma(alphas_cumprod, timesteps)
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


def guidance_scales(shares: torch.Tensor, scale: float, interval: tuple[float, float]) -> torch.Tensor:
    """The scale inside the interval, both ends included, and 1 outside (arXiv 2404.07724, eq. 3).

    Args:
        shares: of the timesteps, 0 (clean) to 1 (noise), [B].
        scale: of guidance.
        interval: from where to where it applies.

    Returns:
        [B, 1, 1, 1].
    """
    low, high = interval
    return torch.where((shares >= low) & (shares <= high), scale, 1.0)[:, None, None, None]


def landing_target(
    noisy: torch.Tensor,
    landed: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    end_alpha: torch.Tensor,
    end_sigma: torch.Tensor,
) -> torch.Tensor:
    """The x that one DDIM step must predict to land where the teacher's steps did (arXiv 2202.00512, algorithm 2).

    x = (z_t'' - (sigma_t'' / sigma_t) z_t) / (alpha_t'' - (sigma_t'' / sigma_t) alpha_t).
    """
    ratio = end_sigma / sigma
    return (landed - ratio * noisy) / (end_alpha - ratio * alpha)


def truncated_snr_loss(
    prediction: torch.Tensor, target: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """max(alpha^2 / sigma^2, 1) || x - x_target ||^2, a mean over values (arXiv 2202.00512, eq. 9)."""
    weight = (alpha / sigma).square().flatten().clamp(min=1)
    return (weight * (prediction - target).square().mean((1, 2, 3))).mean()


def feature_loss(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    """Mean over stages of the features' squared error (BK-SDM, arXiv 2305.15798, eq. 3).

    Each stage's error is over the mean square of the teacher's features, so that no stage dominates.
    """
    terms = [
        F.mse_loss(s.float(), t.float()) / t.float().square().mean() for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()
