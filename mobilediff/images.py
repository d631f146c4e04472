"""Convert images between uint8 and the floats in [-1, 1] that the networks take."""

import torch


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 images, 0..255, to float32 in [-1, 1]; any shape."""
    return images.float().div_(127.5).sub_(1)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Round float images in [-1, 1] to uint8, 0..255, values outside clipped; any shape."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
