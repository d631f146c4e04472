"""Tell noised real latents from generated ones: UFOGen's adversarial losses.

They are the non-saturating ones of arXiv 2311.09257, eq. 5. A discriminator is called with noisy latents
[B, C, H, W], timesteps [B] and caption ids [B], and gives logits [B, 1, H, W] in float32.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.diffusion import add_noise, alpha_sigma
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.models.variants import variant
from mobilediff.training.data.latents import Batch


def make_discriminator(unet: MobileUNet) -> MobileUNet:
    """Copy the student with one output channel: a logit for each latent pixel.

    Raises:
        ValueError: another layer than the last differs from the student's.
    """
    discriminator = variant(unet, out_channels=1)
    weights = {name: value for name, value in unet.state_dict().items() if not name.startswith("conv_out.")}
    missing, unexpected = discriminator.load_state_dict(weights, strict=False)
    if unexpected or any(not name.startswith("conv_out.") for name in missing):
        raise ValueError(f"the student's weights do not fit the discriminator: {missing}, {unexpected}")
    return discriminator


def noised(latents: torch.Tensor, timesteps: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw z_t of latents [B, C, H, W] at timesteps [B]; a timestep below 0 leaves them clean."""
    noise = torch.empty_like(latents).normal_(generator=generator)
    return add_noise(latents, noise, *alpha_sigma(timesteps))


def generator_loss(
    discriminator: nn.Module, fake: Batch, timesteps: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Compute -log D of noised predictions, a scalar without a gradient in the discriminator's weights.

    Args:
        discriminator: not wrapped for several devices, which would wait for gradients that never come.
        fake: the generator's predictions, latents [B, C, H, W] with a gradient.
        timesteps: where they are noised to, int64 [B].
        generator: of the noise.
    """
    noisy = noised(fake.latents, timesteps, generator)
    discriminator.requires_grad_(False)
    loss = F.softplus(-discriminator(noisy, timesteps.clamp(min=0), fake.caption_ids)).mean()
    discriminator.requires_grad_(True)
    return loss


def discriminator_loss(
    discriminator: nn.Module,
    real: Batch,
    fake: Batch,
    timesteps: torch.Tensor,
    generator: torch.Generator,
    *,
    lambda_r1: float,
    r1_deviation: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Compute the discriminator's loss on real and fake latents noised alike.

    The penalty is R1 by a difference (arXiv 2501.08316) instead of a derivative, here over the deviation squared,
    so that it estimates the squared gradient for every deviation.

    Args:
        discriminator: with a gradient in its weights.
        real, fake: latents [B, C, H, W], the second ones without a gradient, and their captions.
        timesteps: where both are noised to, int64 [B].
        generator: of the noise and the perturbation.
        lambda_r1: weight of the penalty; at 0 it is not computed.
        r1_deviation: size of the perturbation in it.

    Returns:
        The loss with its penalty, a scalar, and figures for the log: the loss without it, the penalty where it has a
        weight, and the fractions of real and fake logits on their side of 0.
    """
    noisy = [noised(batch.latents, timesteps, generator) for batch in (real, fake)]
    caption_ids = [real.caption_ids, fake.caption_ids]
    if lambda_r1:
        noisy.append(noisy[0] + r1_deviation * torch.empty_like(noisy[0]).normal_(generator=generator))
        caption_ids.append(real.caption_ids)
    stacked = discriminator(torch.cat(noisy), torch.cat([timesteps] * len(noisy)).clamp(min=0), torch.cat(caption_ids))
    logits_real, logits_fake, *perturbed = stacked.chunk(len(noisy))
    loss = F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()
    figures = {
        "loss_discriminator": loss,
        "real_fraction": (logits_real > 0).float().mean(),
        "fake_fraction": (logits_fake < 0).float().mean(),
    }
    if lambda_r1:
        change = logits_real.mean((1, 2, 3)) - perturbed[0].mean((1, 2, 3))
        figures["loss_r1"] = change.square().mean() / r1_deviation**2
        loss = loss + lambda_r1 * figures["loss_r1"]
    return loss, figures
