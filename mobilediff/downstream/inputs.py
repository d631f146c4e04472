"""Check the pictures, masks and strengths that edits start from."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image

THRESHOLD = 0.5  # of a mask, as in diffusers: what is as bright is repainted


def check_strength(strength: Any) -> float:
    """Check a strength.

    Raises:
        ValueError: it is not a number above 0 and up to 1.
    """
    is_number = isinstance(strength, Real) and not isinstance(strength, bool)
    if not is_number or not 0 < float(strength) <= 1:
        raise ValueError(f"strength is {strength!r}, accepted: numbers above 0, up to 1")
    return float(strength)


def read_images(image: Any, size: tuple[int, int]) -> torch.Tensor:
    """Read RGB pictures in the forms that diffusers takes.

    Args:
        image: a PIL image of mode RGB or a list of such; or floats from 0 to 1, as an array [H, W, 3] or [N, H, W, 3]
            or a tensor [3, H, W] or [N, 3, H, W].
        size: the height and width that they must have.

    Returns:
        float32 [N, 3, H, W] in [-1, 1].

    Raises:
        ValueError: naming what was given and what is accepted.
    """
    images = _read("image", image, ("RGB",), 3)
    if images.shape[-2:] != size:
        raise ValueError(f"image is {_size(images)}, accepted: {size[0]} x {size[1]} pixels")
    return 2 * images - 1


def read_masks(mask_image: Any, size: tuple[int, int]) -> torch.Tensor:
    """Read masks, white where the image is to be repainted, in the forms that diffusers takes.

    Args:
        mask_image: a PIL image of mode L or 1, or a list of such; or floats from 0 to 1, as an array [H, W] or
            [N, H, W] or a tensor [1, H, W] or [N, 1, H, W].
        size: height and width of their images.

    Returns:
        float32 [N, 1, H, W], 1 where the image is repainted and 0 where it is kept.

    Raises:
        ValueError: naming what was given and what is accepted; a mask that is of another size than its image, or
            that repaints nothing or everything, among it.
    """
    masks = _read("mask_image", mask_image, ("L", "1"), 1)
    if masks.shape[-2:] != size:
        raise ValueError(f"mask_image is {_size(masks)}, but the image is {size[0]} x {size[1]} pixels")
    masks = (masks >= THRESHOLD).float()
    for share in masks.mean((1, 2, 3)).tolist():
        if share == 0:
            raise ValueError("mask_image is empty: no pixel is white, so there is nothing to repaint")
        if share == 1:
            raise ValueError(
                "mask_image is full: all pixels are white, so nothing of the image is kept; "
                "MobileDiffusionPipeline draws whole images"
            )
    return masks


def _size(images: torch.Tensor) -> str:
    return f"{images.shape[-2]} x {images.shape[-1]} pixels"


def _read(name: str, value: Any, modes: tuple[str, ...], channels: int) -> torch.Tensor:
    """Read pictures as floats from 0 to 1, [N, channels, H, W]."""
    forms = f"a PIL image of mode {' or '.join(modes)}, an array or a tensor of {channels} channel(s), from 0 to 1"
    if isinstance(value, Image.Image) or (isinstance(value, (list, tuple)) and value):
        pictures = [value] if isinstance(value, Image.Image) else list(value)
        for picture in pictures:
            if not isinstance(picture, Image.Image):
                raise ValueError(
                    f"{name} holds a {type(picture).__name__}, accepted: PIL images in a list; or {forms}"
                )
            if picture.mode not in modes:
                raise ValueError(f"{name} is a PIL image of mode {picture.mode}, accepted: {forms}")
            if picture.size != pictures[0].size:
                raise ValueError(f"{name} holds images of {picture.size} and {pictures[0].size}, accepted: one size")
        scale = 1 if pictures[0].mode == "1" else 255
        arrays = np.stack([np.asarray(picture, np.float32) / scale for picture in pictures])
        return torch.from_numpy(arrays.reshape(*arrays.shape[:3], channels)).movedim(-1, 1)
    if not isinstance(value, (np.ndarray, torch.Tensor)):
        raise ValueError(f"{name} is {value!r}, accepted: {forms}")
    if not (value.is_floating_point() if isinstance(value, torch.Tensor) else value.dtype.kind == "f"):
        raise ValueError(f"{name} holds {value.dtype}, accepted: {forms}")
    shape, tensor = tuple(value.shape), torch.as_tensor(value)
    if isinstance(value, np.ndarray):
        tensor = tensor if channels == 3 else tensor[..., None]
        tensor = tensor.movedim(-1, -3) if tensor.ndim >= 3 else tensor
    tensor = tensor[None] if tensor.ndim == 3 else tensor
    if tensor.ndim != 4 or tensor.shape[1] != channels or not tensor.numel():
        raise ValueError(f"{name} is of shape {shape}, accepted: {forms}")
    if not ((tensor >= 0) & (tensor <= 1)).all():  # NaN among it
        raise ValueError(f"{name} holds values outside 0 to 1, accepted: {forms}")
    return tensor.float().cpu()
