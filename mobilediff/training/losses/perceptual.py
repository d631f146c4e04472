"""Compare feature maps: of images, and of the images that latents decode to."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.images import to_bytes, to_float
from mobilediff.models.image_encoder import ImageEncoder

BATCH_SIZE = 250


def feature_distances(feature_maps: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum the squared distances of channel-normalised feature maps over levels.

    LPIPS (arXiv 1801.03924, eq. 1) without its learnt weights of the channels.

    Args:
        feature_maps, expected: [N, C_i, H_i, W_i] of each level.

    Returns:
        A distance each image, [N].
    """
    distances = (
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean((1, 2))
        for a, b in zip(feature_maps, expected, strict=True)
    )
    return reduce(torch.add, distances)


def feature_distance(feature_maps: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> torch.Tensor:
    """Average `feature_distances` of feature maps, [N, C_i, H_i, W_i] of each level; a scalar."""
    return feature_distances(feature_maps, expected).mean()


class PerceptualLoss(nn.Module):
    """Compare images by `feature_distance` of a frozen encoder's feature maps."""

    def __init__(self, encoder: ImageEncoder):
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compare float images [N, 3, H, W] in [-1, 1]; returns a scalar."""
        return self.compare(images, targets)[0]

    def compare(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Compare as `forward`; returns the scalar, and the feature maps of `images`, [N, C_i, H_i, W_i]."""
        with torch.no_grad():
            expected = self.encoder(targets).feature_maps
        maps = self.encoder(images).feature_maps
        return feature_distance(maps, expected), maps


class LatentPerceptualLoss:
    """Compare decoded latents with the images of targets, which are decoded once.

    Args:
        perceptual: loss of float images and targets, each [N, 3, H, W].
        decode: float images [N, 3, H, W] in [-1, 1] of normalised latents [N, C, h, w].
        targets: all latents that samples are ever compared with, [N, C, h, w].
        autocast: makes the context of the perceptual loss's forward pass.
    """

    def __init__(
        self,
        perceptual: nn.Module,
        decode: Callable[[torch.Tensor], torch.Tensor],
        targets: torch.Tensor,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.perceptual, self.decode, self.autocast = perceptual, decode, autocast
        with torch.no_grad():
            decoded = [to_bytes(decode(batch.float())) for batch in targets.split(BATCH_SIZE)]
        self.targets = torch.cat(decoded)

    def __call__(self, latents: torch.Tensor, target_ids: torch.Tensor) -> torch.Tensor:
        """Compare latents [B, C, h, w] with the targets of `target_ids`, [B]; returns a scalar."""
        images = self.decode(latents)
        with self.autocast():
            return self.perceptual(images, to_float(self.targets[target_ids]))
