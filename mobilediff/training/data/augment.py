"""Flip and shift image tensors on the device."""

import torch
import torch.nn.functional as F


def mirror(images: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Mirror those images of [N, C, H, W] for which the bool tensor `which`, [N], says so."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def random_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image of [N, C, H, W] with probability one half."""
    flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return mirror(images, flipped)


def random_translate(images: torch.Tensor, pixels: int, generator: torch.Generator) -> torch.Tensor:
    """Shift each image of [N, C, H, W] by up to `pixels` either way, with reflected borders."""
    if not pixels:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, mode="reflect")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    shifts = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator, device=images.device)
    return windows[torch.arange(count, device=images.device), :, shifts[0], shifts[1]]
