"""Compare images with the edges and colours that they are to have."""

import torch
import torch.nn.functional as F

SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def contrast(images: torch.Tensor) -> torch.Tensor:
    """Compute the length of the Sobel gradient, of the channel where it is the longest.

    Canny's detector thresholds the same map.

    Args:
        images: [N, C, H, W].

    Returns:
        [N, H, W].
    """
    horizontal = torch.tensor(SOBEL, device=images.device, dtype=images.dtype)
    kernels = torch.stack([horizontal, horizontal.T])[:, None]
    padded = F.pad(images.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="reflect")
    gradients = F.conv2d(padded, kernels)
    lengths = (gradients.square().sum(1) + 1e-6).sqrt()
    return lengths.unflatten(0, images.shape[:2]).amax(1)


def edge_loss(images: torch.Tensor, targets: torch.Tensor, has_edges: torch.Tensor) -> torch.Tensor:
    """Average the differences of contrast over the images whose edges are given.

    Args:
        images, targets: [N, C, H, W].
        has_edges: 1 where edges are given, [N].

    Returns:
        A scalar.
    """
    differences = (contrast(images) - contrast(targets)).abs().mean((1, 2))
    return (differences * has_edges).mean()


def color_loss(images: torch.Tensor, colors: torch.Tensor, has_colors: torch.Tensor) -> torch.Tensor:
    """Average the squared errors of the colour map over the images whose colours are given.

    Args:
        images: [N, 3, H, W].
        colors: the means that they are to have, [N, 3, size, size].
        has_colors: 1 where colours are given, [N].

    Returns:
        A scalar.
    """
    errors = (F.adaptive_avg_pool2d(images, colors.shape[-1]) - colors).square().mean((1, 2, 3))
    return (errors * has_colors).mean()
