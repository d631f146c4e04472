"""Match distributions (DMD2, arXiv 2405.14867): samples follow the teacher's score, away from their own."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mobilediff.diffusion import Diffused, any_timesteps, diffuse, sample_from_velocity
from mobilediff.training.data.latents import Batch

# Without the ends of the diffusion, where one of the two predictions has no information (arXiv 2405.14867, appendix).
MATCHED = (0.02, 0.98)

# v [B, C, H, W] of noisy latents [B, C, H, W] at timesteps [B], for caption ids [B].
Velocity = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _diffuse(samples: Batch, generator: torch.Generator) -> tuple[torch.Tensor, Diffused]:
    timesteps = any_timesteps(len(samples.latents), MATCHED, generator, samples.latents.device)
    return timesteps, diffuse(samples.latents, timesteps, generator)


def distribution_matching_loss(
    teacher: Velocity, fake_score: Velocity, samples: Batch, generator: torch.Generator
) -> torch.Tensor:
    """Compute a loss whose gradient in the samples is x_fake - x_teacher, normalised.

    Half the square of that, as a value (arXiv 2311.18828, equations 7 and 8; 2405.14867, section 3). The normaliser
    is the mean distance of the teacher's x from the sample.

    Args:
        teacher: its guided velocity.
        fake_score: velocity of the network that learns the samples' own score.
        samples: of the generator, latents [B, C, H, W] with a gradient.
        generator: of timesteps and noise.

    Returns:
        A scalar.
    """
    with torch.no_grad():
        timesteps, z = _diffuse(samples, generator)
        x_teacher, x_fake = (
            sample_from_velocity(z.noisy, network(z.noisy, timesteps, samples.caption_ids), z.alpha, z.sigma)
            for network in (teacher, fake_score)
        )
        scale = (samples.latents - x_teacher).abs().mean((1, 2, 3), keepdim=True)
        target = samples.latents - (x_fake - x_teacher) / scale
    return F.mse_loss(samples.latents, target) / 2


def fake_score_loss(fake_score: Velocity, samples: Batch, generator: torch.Generator) -> torch.Tensor:
    """Compute the diffusion loss of the fake score on the generator's samples.

    Args:
        fake_score: velocity of the network that learns.
        samples: latents [B, C, H, W] without a gradient.
        generator: of timesteps and noise.

    Returns:
        A scalar.
    """
    timesteps, z = _diffuse(samples, generator)
    return F.mse_loss(fake_score(z.noisy, timesteps, samples.caption_ids), z.velocity)
