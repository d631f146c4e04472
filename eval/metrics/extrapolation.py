"""Extrapolate the Frechet distance to infinitely many images."""

import numpy as np
import torch

from eval.metrics.checks import check_features
from eval.metrics.frechet import Statistics, check_count, weighted_distance
from eval.metrics.pauses import pause

POINTS = 15  # as in the paper


def smallest_set(n: int, dim: int) -> int:
    """Return the least images of a point of `frechet_distance_infinity`: a quarter of `n`, or `dim` + 1 if more."""
    return max(n // 4, dim + 1)


def frechet_distance_infinity(
    features: torch.Tensor, reference: Statistics, points: int = POINTS, seed: int = 0
) -> float:
    """Estimate the Frechet distance of infinitely many images, by a line through distances of fewer, over 1 / n.

    The bias of the distance falls as 1 / n, at a slope of its own for each model: rows of any n, and models of one n,
    compare by the value at 1 / n = 0. It can be a little below 0. The reference is taken as it is.

    Source: Chong and Forsyth, arXiv 1911.07023, section 3, with random images in the place of a Sobol sequence's; the
    sizes are evenly spaced from `smallest_set` to all.

    Args:
        features: of images in an order that tells nothing, [N, F]; N above `smallest_set`.
        reference: of the same extractor.
        points: sizes, 2 or more.
        seed: of the images that a smaller set has.

    Raises:
        ValueError: fewer than 2 points, too few rows, a value that is not finite, or a reference of another number of
            features.
    """
    if points < 2:
        raise ValueError(f"points is {points}; accepted is 2 or more")
    features = check_features(features, "sample")
    n, dim = features.shape
    if dim != len(reference.mu):
        raise ValueError(f"{dim} features against {len(reference.mu)}: not of the same extractor")
    check_count(n - 1, dim)  # two sizes at least
    sizes = np.linspace(smallest_set(n, dim), n, points).round().astype(int)
    distance, draws = weighted_distance(features.cpu().numpy(), reference), np.random.default_rng(seed)
    distances = []
    for size in sizes:
        pause()
        counts = np.zeros(n, dtype=np.int64)
        counts[draws.choice(n, size, replace=False)] = 1
        distances.append(distance(counts))
    return float(np.polyfit(1 / sizes, distances, 1)[1])
