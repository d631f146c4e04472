"""Images as uint8 and as the floats in [-1, 1] that the networks take."""

import torch


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 to float32 in [-1, 1], any shape."""
    return images.float().div_(127.5).sub_(1)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """The nearest uint8 0..255 of floats in [-1, 1], what lies outside cut off; any shape."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
