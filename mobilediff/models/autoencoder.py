"""Encode images with a VAE, decode them again, and measure what is lost."""

import torch
from diffusers import AutoencoderTiny

from mobilediff.checkpoints import VAE
from mobilediff.images import to_bytes, to_float
from mobilediff.models.latent_decoder import latent_statistics


def encode(vae: VAE, images: torch.Tensor) -> torch.Tensor:
    """The latents that `vae.decode` takes, the posterior's mean where there is one; images float [N, 3, H, W]."""
    encoded = vae.encode(images)
    return encoded.latents if isinstance(vae, AutoencoderTiny) else encoded.latent_dist.mean


def encode_latents(vae: VAE, images: torch.Tensor) -> torch.Tensor:
    """The normalised latents that the generators learn: (latents - latents_mean) / latents_std.

    Args:
        images: float [N, 3, H, W] in [-1, 1].

    Returns:
        float32 [N, C, H / 2, W / 2].
    """
    mean, std = latent_statistics(vae)
    return (encode(vae, images).float() - mean) / std


@torch.no_grad()
def reconstruct(vae: VAE, images: torch.Tensor, batch_size: int = 250) -> torch.Tensor:
    """Images encoded and decoded again, rounded to 8 bits.

    Args:
        images: uint8 [N, 3, H, W].

    Returns:
        uint8 [N, 3, H, W], on the images' device.
    """
    decoded = []
    for batch in images.split(batch_size):
        restored = vae.decode(encode(vae, to_float(batch.to(vae.device)))).sample
        decoded.append(to_bytes(restored).to(images.device))
    return torch.cat(decoded)


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean over the images of 10 log10(255^2 / mean squared error), in dB; equal images count as 100 dB.

    Args:
        first, second: uint8 [N, 3, H, W].

    Raises:
        ValueError: no images, or the two differ in shape.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(
            f"images are {tuple(first.shape)} and {tuple(second.shape)}; accepted are two of one [N, 3, H, W], N of 1 "
            "or more"
        )
    errors = (first.double() - second.double()).square().mean((1, 2, 3))
    return (10 * torch.log10(255**2 / errors)).clamp(max=100).mean().item()
