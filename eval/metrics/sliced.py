"""Compute the sliced Wasserstein distance: optimal transport along random directions."""

import torch
import torch.nn.functional as F

from eval.metrics.checks import check_pair
from eval.metrics.pauses import pause

DIRECTIONS = 1000


def sliced_wasserstein(
    real: torch.Tensor, generated: torch.Tensor, directions: int = DIRECTIONS, seed: int = 0, batch_size: int = 100
) -> float:
    """Average over random directions the squared 2-Wasserstein distance of the projections.

    In one dimension the optimal transport joins equal ranks, so a direction's distance is the mean squared difference
    of the sorted projections: no covariance is fitted, and 1,000 to 2,000 rows are enough to rank models. Two sets of
    one distribution are above 0, the less the more rows: compare only figures of equal numbers of rows.

    Source: Rabin et al., "Wasserstein barycenter and its application to texture mixing" (2011); of Inception's
    features, and called MIND with them alone, Berthet et al., arXiv 2605.06797. Without a scale.

    Args:
        real, generated: [N, F] each.
        directions: uniform on the unit sphere.
        seed: of the directions, which depend on nothing else but F.
        batch_size: directions at a time; memory is a few times batch_size x N x 8 bytes.

    Raises:
        ValueError: no directions, different numbers of rows or features, or a value that is not finite.
    """
    for name, value in (("directions", directions), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; accepted is 1 or more")
    real, generated = check_pair(real, generated, ("real", "generated"))
    if len(real) != len(generated):
        raise ValueError(f"{len(real)} real rows, {len(generated)} generated rows: accepted are equally many")
    generator = torch.Generator().manual_seed(seed)
    axes = F.normalize(torch.randn(directions, real.shape[1], generator=generator, dtype=torch.float64), dim=1)
    total = 0.0
    for some in axes.to(real.device).split(batch_size):
        pause()
        sorted_real, sorted_generated = ((some @ rows.T).sort(dim=1).values for rows in (real, generated))
        total += (sorted_real - sorted_generated).square().mean(dim=1).sum().item()
    return total / directions
