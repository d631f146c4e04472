"""Convert images between uint8 and the floats in [-1, 1] that the networks take, resize them, refuse damaged files."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 images, 0..255, to float32 in [-1, 1]; any shape."""
    return images.float().div_(127.5).sub_(1)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Round float images in [-1, 1] to uint8, 0..255, values outside clipped; any shape."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image, uint8 [H, W, 3], to `size` x `size` pixels by Pillow's Lanczos filter."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))


def resize_images(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resize images, uint8 [N, 3, H, W], to [N, 3, size, size] by `resize_image`."""
    if images.shape[2:] == (size, size):
        return images
    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(lambda image: resize_image(image.permute(1, 2, 0).numpy(), size), images))
    return torch.from_numpy(np.stack(arrays).transpose(0, 3, 1, 2).copy())  # NHWC -> NCHW


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
