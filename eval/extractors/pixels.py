"""Resize images for networks of larger or smaller inputs."""

import torch
import torch.nn.functional as F

from eval.protocol import resized_from
from mobilediff.images import resize_images


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


def shrunk(images: torch.Tensor, size: int | None) -> torch.Tensor:
    """Bring squares of more pixels to fewer, as `resize_images` does.

    Args:
        images: uint8 [N, 3, H, W].
        size: pixels a side, None for whatever the images have.

    Returns:
        [N, 3, size, size] of larger squares, other images as they are.
    """
    return images if size is None or not _is_larger(images, size) else resize_images(images, size)


def shrinking(images: torch.Tensor, size: int | None) -> dict[str, str]:
    """Return what a protocol says of `shrunk` with these arguments: `resized`, or nothing."""
    if size is None or not _is_larger(images, size):
        return {}
    return {"resized": resized_from(images)}


def _is_larger(images: torch.Tensor, size: int) -> bool:
    return images.ndim == 4 and images.shape[2] == images.shape[3] > size
