"""Encode images with a VAE, decode them again, and measure the loss."""

import torch
from diffusers import AutoencoderTiny

from mobilediff.checkpoints import VAE
from mobilediff.images import to_bytes, to_float
from mobilediff.models.latent_decoder import latent_statistics


def encode(vae: VAE, images: torch.Tensor) -> torch.Tensor:
    """Encode images into the latents that `vae.decode` takes.

    Args:
        vae: the latents of an `AutoencoderKL` are its posterior's mean.
        images: float [N, 3, H, W] in [-1, 1].

    Returns:
        [N, C, h, w].
    """
    if isinstance(vae, AutoencoderTiny):
        return vae.encode(images, return_dict=False)[0]
    return vae.encode(images, return_dict=False)[0].mean


def decode(vae: VAE, latents: torch.Tensor) -> torch.Tensor:
    """Decode latents of `encode`, [N, C, h, w], into images, float [N, 3, H, W]."""
    return vae.decode(latents, return_dict=False)[0]  # pyright: ignore[reportArgumentType] - any tensor, not FloatTensor


def image_side(vae: VAE, latent_side: int) -> int:
    """Return the pixels along a side of the images that latents of `latent_side` places decode to."""
    return latent_side * 2 ** (len(vae.config["block_out_channels"]) - 1)


def encode_latents(vae: VAE, images: torch.Tensor) -> torch.Tensor:
    """Encode images into the normalised latents that the generators learn.

    They are (latents - latents_mean) / latents_std, by the config of the VAE.

    Args:
        images: float [N, 3, H, W] in [-1, 1].

    Returns:
        float32 [N, C, h, w]; the project's VAEs have h = H / 2 and w = W / 2.
    """
    mean, std = latent_statistics(vae)
    return (encode(vae, images).float() - mean) / std


@torch.no_grad()
def reconstruct(vae: VAE, images: torch.Tensor, batch_size: int = 250) -> torch.Tensor:
    """Encode images and decode them again, rounded to 8 bits.

    Args:
        vae: on any device.
        images: uint8 [N, 3, H, W].
        batch_size: images of one call.

    Returns:
        uint8 [N, 3, H, W], on the images' device.
    """
    decoded = []
    for batch in images.split(batch_size):
        restored = decode(vae, encode(vae, to_float(batch.to(vae.device))))
        decoded.append(to_bytes(restored).to(images.device))
    return torch.cat(decoded)


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    """Average the images' peak signal-to-noise ratios, in dB.

    The ratio of an image is 10 log10(255^2 / mean squared error); equal images count as 100 dB.

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
