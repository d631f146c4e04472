"""Damage images in known ways: noise, blur, JPEG."""

import io

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import gaussian_blur

REACH = 3  # of a blur, in standard deviations


def noised(images: torch.Tensor, std: float) -> torch.Tensor:
    """Add Gaussian noise to images, seed 0, cut to 0..255.

    Args:
        images: uint8 [N, 3, H, W].
        std: as a fraction of the range 0..1.
    """
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * (255 * std)
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur images, uint8 [N, 3, H, W], by a Gaussian of `sigma` pixels, mirrored at the edges."""
    size = 2 * max(1, round(REACH * sigma)) + 1
    return gaussian_blur(images, [size, size], [sigma, sigma])


def compressed(images: torch.Tensor, quality: int) -> torch.Tensor:
    """Compress images, uint8 [N, 3, H, W], as JPEG of `quality` 1 to 100 by Pillow, and decode them."""
    return torch.stack([_compressed(image, quality) for image in images])


def _compressed(image: torch.Tensor, quality: int) -> torch.Tensor:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, format="jpeg", quality=quality)
    with Image.open(buffer) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)
