"""Compute precision, recall, density and coverage from balls around feature rows."""

from collections.abc import Iterator

import torch
from torch_fidelity.metric_prc import calc_cdist_part

from eval.metrics.checks import check_pair
from eval.metrics.pauses import pause

# A row on the rim of a ball counts as inside. Features come out of float32 networks, so the rim is as wide as the
# rounding of float32, relative to the longest row.
RIM = 1e-7


def manifold_metrics(real: torch.Tensor, generated: torch.Tensor, k: int = 3, batch_size: int = 500) -> dict:
    """Measure how much of each set of features lies in the other set's balls.

    There is a ball around each row, which reaches to the k-th nearest row of the same set.

    All four figures depend on k and on the sizes of both sets: compare only figures of equal sizes, best N = M. Two
    sets of one distribution with N = M have a density of about 1 and a coverage of about 1 - 2^-k; density can exceed
    1. Precision and recall are in 0 to 1 and have no such fixed level.

    Distances are Euclidean, in float64. Memory is a few times batch_size x max(N, M) x 8 bytes.

    Sources: precision and recall: Kynkaanniemi et al., arXiv 1904.06991, equations 1 and 2, as torch-fidelity computes
    them; density and coverage: Naeem et al., arXiv 2002.09797, equations 3 and 4, where k is 5.

    Args:
        real: [N, F].
        generated: [M, F].
        k: neighbours, a row itself not counted.
        batch_size: rows whose distances are held at a time; without effect on the result.

    Returns:
        `precision` (generated rows in a real ball), `recall` (real rows in a generated ball), `density` (real balls
        that a generated row is in, over k), `coverage` (real balls with a generated row inside), `neighbours` (k).

    Raises:
        ValueError: `k` or `batch_size` below 1, k rows or fewer, different numbers of features, or a value that is
            not finite.
    """
    for name, value in (("k", k), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; accepted is 1 or more")
    real, generated = check_pair(real, generated, ("real", "generated"), least=k + 1)
    density, coverage = density_and_coverage(real, generated, k, batch_size)
    return {
        "precision": fraction_in_balls(generated, real, k, batch_size),
        "recall": fraction_in_balls(real, generated, k, batch_size),
        "density": density,
        "coverage": coverage,
        "neighbours": k,
    }


def fraction_in_balls(rows: torch.Tensor, centres: torch.Tensor, k: int, batch_size: int) -> float:
    """Compute the fraction of rows [N, F] that lie in the ball of one of the centres [M, F], both float64."""
    radii, inside = [], []
    for batch in centres.split(batch_size):
        pause()
        radii.append(calc_cdist_part(batch, centres, batch_size).kthvalue(k + 1).values)
    reach = torch.cat(radii)
    for batch in rows.split(batch_size):
        pause()
        inside.append((calc_cdist_part(batch, centres, batch_size) <= reach).any(dim=1).float())
    return torch.cat(inside).mean().item()


def density_and_coverage(real: torch.Tensor, generated: torch.Tensor, k: int, batch_size: int) -> tuple[float, float]:
    """Compute density and coverage of float64 features checked by `manifold_metrics`.

    X_i, Y_j = real [N, F], generated [M, F]; NND_k(X_i) = distance of X_i to its k-th nearest other real row.

    Equation 3: density = 1 / (k M) sum_j sum_i 1[Y_j in B(X_i, NND_k(X_i))].
    Equation 4: coverage = 1 / N sum_i 1[some Y_j in B(X_i, NND_k(X_i))].
    """
    inside, covered = 0, 0
    for hits in ball_hits(real, generated, k, batch_size):
        inside += int(hits.sum())
        covered += int(hits.any(dim=1).sum())
    return inside / (k * len(generated)), covered / len(real)


def ball_hits(real: torch.Tensor, generated: torch.Tensor, k: int, batch_size: int) -> Iterator[torch.Tensor]:
    """Find the generated rows in each real ball.

    Args:
        real: float64 [N, F].
        generated: float64 [M, F].
        k: neighbours, as in `manifold_metrics`.
        batch_size: real rows at a time, B.

    Yields:
        bool [at most B, M], real row after real row.
    """
    rim = RIM * real.norm(dim=1).max()
    for centres in real.split(batch_size):
        pause()
        # k + 1, as a centre is its own nearest row
        radii = torch.cdist(centres, real).kthvalue(k + 1, dim=1, keepdim=True).values
        yield torch.cdist(centres, generated) <= radii + rim


NEIGHBOURS = 3
