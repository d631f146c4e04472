"""Extract edges and coarse colours from images: the conditions of `MobileControlNet`."""

import cv2
import torch
import torch.nn.functional as F

from mobilediff.images import to_float

# Hysteresis thresholds of Canny's detector: at 32 x 32 they leave outlines, as a sketch has them.
CANNY_THRESHOLDS = (200, 400)

cv2.setNumThreads(1)  # a picture of this size takes less time than waking threads for it


def canny_edges(images: torch.Tensor) -> torch.Tensor:
    """Detect edges by Canny's method.

    Args:
        images: uint8 [N, 3, H, W].

    Returns:
        uint8 [N, 1, H, W], 255 on an edge and 0 elsewhere.
    """
    pictures = images.permute(0, 2, 3, 1).contiguous().numpy()
    edges = [torch.from_numpy(cv2.Canny(picture, *CANNY_THRESHOLDS)) for picture in pictures]
    return torch.stack(edges)[:, None]


def color_maps(images: torch.Tensor, size: int) -> torch.Tensor:
    """Average the colours of size x size fields.

    Args:
        images: uint8 [N, 3, H, W].
        size: fields along a side, a divisor of H and W.

    Returns:
        float32 [N, 3, size, size] in [-1, 1].
    """
    return F.adaptive_avg_pool2d(to_float(images), size)
