"""Resize images for networks of larger or smaller inputs."""

import torch
import torch.nn.functional as F

from mobilediff.images import resize_images

SHRINKING = "Lanczos (Pillow)"


def bicubic(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resize uint8 images [N, 3, H, W] to float32 [N, 3, size, size] in 0..255, as Pillow's bicubic filter does.

    Antialiased, and rounded to whole numbers after each axis.

    Raises:
        ValueError: not such a tensor.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}; accepted is uint8 [N, 3, H, W]")
    pixels = images.float()
    for shape in ((images.shape[2], size), (size, size)):
        pixels = F.interpolate(pixels, shape, mode="bicubic", antialias=True).round().clamp(0, 255)
    return pixels


def is_larger(images: torch.Tensor, size: int) -> bool:
    """Tell whether images [N, 3, H, W] are squares of more than `size` pixels a side."""
    return images.ndim == 4 and images.shape[2] == images.shape[3] > size


def shrunk(images: torch.Tensor, size: int) -> torch.Tensor:
    """Bring larger squares, uint8 [N, 3, H, W], to [N, 3, size, size] by `SHRINKING`; others stay as they are."""
    return resize_images(images, size) if is_larger(images, size) else images
