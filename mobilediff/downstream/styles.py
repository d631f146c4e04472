"""Restyle images by filters: a pencil sketch, and pixel art of 27 colours."""

import torch
import torch.nn.functional as F
from torchvision.transforms.functional import gaussian_blur, rgb_to_grayscale

PENCIL_SIGMA = 2.5  # pixels
BLOCK = 2  # pixels
LEVELS = 3  # of each of red, green and blue


def pencil(images: torch.Tensor) -> torch.Tensor:
    """Sketch images in pencil: brightness divided by its blurred self ("colour dodge").

    Args:
        images: uint8 [N, 3, H, W].

    Returns:
        uint8 [N, 3, H, W], grey.
    """
    grey = rgb_to_grayscale(images, num_output_channels=3).float()
    size = 2 * round(3 * PENCIL_SIGMA) + 1
    blurred = gaussian_blur(grey, [size, size], [PENCIL_SIGMA, PENCIL_SIGMA])
    return (255 * grey / blurred.clamp(min=1)).round().clamp(max=255).to(torch.uint8)


def palette(images: torch.Tensor) -> torch.Tensor:
    """Draw images as pixel art: the mean colour of each block, each channel at the nearest level.

    Args:
        images: uint8 [N, 3, H, W], of even height and width.

    Returns:
        uint8 [N, 3, H, W].
    """
    step = 255 / (LEVELS - 1)
    blocks = ((F.avg_pool2d(images.float(), BLOCK) / step).round() * step).round().to(torch.uint8)
    return blocks.repeat_interleave(BLOCK, -1).repeat_interleave(BLOCK, -2)


STYLES = {"pencil": pencil, "palette": palette}
