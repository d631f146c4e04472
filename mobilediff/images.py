"""Convert images between uint8 and the floats in [-1, 1] that the networks take, and refuse damaged files of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from PIL import Image


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 images, 0..255, to float32 in [-1, 1]; any shape."""
    return images.float().div_(127.5).sub_(1)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Round float images in [-1, 1] to uint8, 0..255, values outside clipped; any shape."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@contextmanager
def decoding(refusal: str) -> Iterator[None]:
    """Turn each error of Pillow about the content of an image into one.

    Args:
        refusal: its message.

    Raises:
        ValueError: Pillow cannot read the image. It reports broken PNG chunks as SyntaxError, too large texts as
            ValueError.
    """
    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(refusal) from error
