"""Compute how well images agree with the edges and colours that they were to have."""

import torch
import torch.nn.functional as F


def _check_alike(found: torch.Tensor, given: torch.Tensor) -> None:
    if found.shape != given.shape or not found.numel():
        raise ValueError(
            f"found is {tuple(found.shape)} and given {tuple(given.shape)}; accepted are two of one shape"
        )


def edge_f1(found: torch.Tensor, given: torch.Tensor) -> float:
    """Compute the F1 of edge pixels, where a neighbouring pixel counts as found.

    Precision is the fraction of found edge pixels that have a given one at most one pixel away, diagonals included;
    recall exchanges the two. Both are over the pixels of all images.

    Args:
        found, given: bool [N, 1, H, W].

    Raises:
        ValueError: they differ in shape or are empty, or there is no given edge.
    """
    _check_alike(found, given)
    if not given.any():
        raise ValueError("no edge is given in any image; accepted are images of which one has an edge")
    near_found, near_given = (F.max_pool2d(edges.float(), 3, stride=1, padding=1) > 0 for edges in (found, given))
    if not found.any():
        return 0.0
    precision = near_given[found].double().mean()
    recall = near_found[given].double().mean()
    return (2 * precision * recall / (precision + recall).clamp(min=1e-12)).item()


def color_error(found: torch.Tensor, given: torch.Tensor) -> float:
    """Average the absolute differences of two colour maps, in levels of 8 bits: 0 to 255.

    Args:
        found, given: floats [N, 3, h, w] in [-1, 1].

    Raises:
        ValueError: they differ in shape or are empty.
    """
    _check_alike(found, given)
    return 127.5 * (found.double() - given.double()).abs().mean().item()
