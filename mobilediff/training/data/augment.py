"""Flip and shift image tensors on the device."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mobilediff.data import ImageDataset
from mobilediff.images import to_float
from mobilediff.training.engine.trainer import Draws


def mirror(images: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Mirror the images [N, C, H, W] where the bool tensor `which` [N] is true; returns [N, C, H, W]."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def random_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image of [N, C, H, W] with probability one half; returns [N, C, H, W]."""
    flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return mirror(images, flipped)


def random_translate(images: torch.Tensor, pixels: int, generator: torch.Generator) -> torch.Tensor:
    """Shift each image by up to `pixels` either way, with reflected borders.

    Args:
        images: [N, C, H, W].
        pixels: largest shift along each axis.
        generator: of the shifts, on the images' device.

    Returns:
        [N, C, H, W].
    """
    if not pixels:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, mode="reflect")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    shifts = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator, device=images.device)
    return windows[torch.arange(count, device=images.device), :, shifts[0], shifts[1]]


@dataclass
class LabelledBatch:
    """Hold images with their labels.

    Attributes:
        images: float [B, 3, H, W] in [-1, 1], channels_last.
        labels: class indices, int64 [B].
        noun_ids: noun indices, -1 where the noun is not known, int64 [B].
    """

    images: torch.Tensor
    labels: torch.Tensor
    noun_ids: torch.Tensor


class AugmentedImages:
    """Draw mirrored and shifted images of a data set, which it keeps on the device.

    Args:
        dataset: the images and their labels.
        translate: largest shift, in pixels.
        device: of the batches.
    """

    def __init__(self, dataset: ImageDataset, translate: int, device: torch.device):
        self.translate = translate
        self.images, self.labels, self.noun_ids = (
            tensor.to(device) for tensor in (dataset.images, dataset.labels, dataset.noun_ids)
        )

    def draw(self, draws: Draws) -> LabelledBatch:
        """Draw the step's images, each mirrored with probability one half and then shifted."""
        images = random_flip(to_float(self.images[draws.indices]), draws.generator)
        images = random_translate(images, self.translate, draws.generator)
        images = images.to(memory_format=torch.channels_last)
        return LabelledBatch(images, self.labels[draws.indices], self.noun_ids[draws.indices])
