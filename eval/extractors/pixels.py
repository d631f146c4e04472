"""Enlarge images for networks of larger inputs."""

import torch
import torch.nn.functional as F


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
