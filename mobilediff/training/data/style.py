"""Pair the pictures of a one-step model with styled ones."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

COARSE = 8  # pixels a side of the images that are compared


@dataclass
class StylePairs:
    """Hold noise and the styled picture that is to be drawn from it.

    Attributes:
        noise: float32 [N, C, h, w].
        caption_ids: rows of the `CaptionBank`'s texts, int64 [N].
        targets: uint8 [N, 3, H, W].
    """

    noise: torch.Tensor
    caption_ids: torch.Tensor
    targets: torch.Tensor


def assign(pictures: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Assign an image of its own to each picture, the most alike first.

    Args:
        pictures, images: uint8 [N, 3, H, W], compared at a coarse resolution.

    Returns:
        A permutation of the images, int64 [N].
    """
    coarse, others = (F.adaptive_avg_pool2d(one.float(), COARSE).flatten(1) for one in (pictures, images))
    distances = torch.cdist(coarse, others)
    assigned = torch.empty(len(pictures), dtype=torch.int64)
    for _ in range(len(pictures)):
        row, column = divmod(int(distances.argmin()), len(images))
        assigned[row] = column
        distances[row], distances[:, column] = torch.inf, torch.inf
    return assigned
