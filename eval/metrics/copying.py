"""Test for copies of training rows by ranks: the C_T statistic."""

import math

import torch

from eval.metrics.checks import check_features, check_pair
from eval.metrics.nearest import nearest_training

CELLS = 10
LEAST = 20  # rows of samples and of test rows in a cell that counts
ROUNDS = 20  # of k-means


def copying_statistic(
    samples: torch.Tensor, test: torch.Tensor, training: torch.Tensor, cells: int = CELLS, seed: int = 0
) -> dict:
    """Compute C_T, a z-score of how much nearer to the training rows test rows are than samples.

    Within each cell of a partition of the training rows, the distances of samples to their nearest training row are
    ranked among those of test rows (Mann and Whitney's U); the cells' z-scores are averaged, weighted by their test
    rows. Far below 0, about -3, samples are nearer than new real images are: copies. Far above 0 they are farther: the
    model underfits. Unlike `compare_nearest` it looks at all distances, and region by region, so that few copies in
    one place do not hide among far samples elsewhere.

    Source: Meehan et al., arXiv 2004.05675, section 4: cells by k-means, those with fewer than `LEAST` rows of either
    set left out.

    Args:
        samples: features [M, F].
        test: features of real images that no model saw, [T, F].
        training: features [N, F].
        cells: of the partition.
        seed: of the first centres.

    Returns:
        `c_t`, and `c_t_cells`, the cells that counted; None and 0 where none has rows enough.

    Raises:
        ValueError: as in `nearest_training`, or fewer training rows than cells.
    """
    if cells < 1:
        raise ValueError(f"cells is {cells}; accepted is 1 or more")
    samples, training = check_pair(samples, training, ("sample", "training"))
    test, training = check_pair(test, training, ("test", "training"))
    centres = k_means(training, cells, seed)
    placed = [torch.cdist(rows, centres).argmin(dim=1) for rows in (samples, test, training)]
    weighted, weights, counted = 0.0, 0, 0
    for cell in range(cells):
        inside = [rows[place == cell] for rows, place in zip((samples, test, training), placed, strict=True)]
        if min(map(len, inside[:2])) < LEAST or not len(inside[2]):
            continue
        distances = [nearest_training(rows, inside[2])[0] for rows in inside[:2]]
        weighted += len(inside[1]) * rank_score(*distances)
        weights, counted = weights + len(inside[1]), counted + 1
    return {"c_t": weighted / weights if counted else None, "c_t_cells": counted}


def rank_score(first: torch.Tensor, second: torch.Tensor) -> float:
    """Compute the z-score of Mann and Whitney's U of two sets of values, [M] and [T].

    U counts the pairs in which the first is larger, ties by half. Under one distribution its mean is M T / 2 and its
    variance M T (M + T + 1) / 12. Positive where the first are larger.
    """
    m, t = len(first), len(second)
    ordered = second.sort().values
    below, upto = (torch.searchsorted(ordered, first, right=right) for right in (False, True))
    u = (below + upto).sum().item() / 2
    return (u - m * t / 2) / math.sqrt(m * t * (m + t + 1) / 12)


def k_means(rows: torch.Tensor, cells: int, seed: int = 0, rounds: int = ROUNDS) -> torch.Tensor:
    """Find centres of cells, float64 [cells, F], by Lloyd's iterations from random rows [N, F].

    A cell that loses all its rows keeps its centre.

    Raises:
        ValueError: fewer rows than cells.
    """
    rows = check_features(rows, "training", least=cells)
    generator = torch.Generator().manual_seed(seed)
    centres = rows[torch.randperm(len(rows), generator=generator)[:cells].to(rows.device)]
    for _ in range(rounds):
        place = torch.cdist(rows, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, place, rows)
        counts = place.bincount(minlength=cells)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres
