"""Compute kernel distances and Inception score, where it has them by torch-fidelity's own functions.

The kernel distance is called KID only with Inception's features, the score an Inception score only with its logits.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import kernel_mmd

from eval.metrics.checks import check_features, check_pair
from eval.metrics.pauses import pause

SEED = 2020  # torch-fidelity's
SIGMA, CMMD_SCALE = 10.0, 1000.0  # the paper's
SMALLEST_LOGIT = -700.0  # below the largest of its row: exp of it is 1e-304, still a normal float64


def kernel_distance(
    real: torch.Tensor,
    generated: torch.Tensor,
    subsets: int = 100,
    subset_size: int = 1000,
    degree: int = 3,
    gamma: float | None = None,
    coef: float = 1.0,
    seed: int = SEED,
) -> dict:
    """Estimate the squared maximum mean discrepancy of random subsets, kernel (gamma x.y + coef)^degree, unbiased.

    It does not depend on the number of rows in the mean, and can be a little below 0 for equal distributions. The
    subsets overlap: `kernel_distance_std` is their spread, no standard error, and nears 0 as `subset_size` nears the
    number of rows.

    Source: Binkowski et al., arXiv 1801.01401, section 4 and appendix; a subset's by torch-fidelity's own
    function, in float64.

    Args:
        real: [N, F].
        generated: [M, F].
        subsets: drawn without replacement within, independently among each other.
        subset_size: rows of each set in a subset.
        gamma: 1 / F when None.

    Returns:
        `kernel_distance_mean` and `kernel_distance_std` over the subsets, `subsets`, `subset_size`.

    Raises:
        ValueError: no subsets, a subset of 1 row or of more rows than there are, a degree below 1, different numbers
            of features, or a value that is not finite.
    """
    for name, value in (("subsets", subsets), ("degree", degree)):
        if value < 1:
            raise ValueError(f"{name} is {value}; accepted is 1 or more")
    real, generated = check_pair(real, generated, ("real", "generated"), least=2)
    most = min(len(real), len(generated))
    if not 2 <= subset_size <= most:
        raise ValueError(f"subset_size is {subset_size}; accepted is 2 to {most}, the rows of the smaller set")
    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": degree}
    options |= {"kid_kernel_poly_gamma": gamma, "kid_kernel_poly_coef0": coef}
    # the generated rows are drawn first, in the order of torch-fidelity's own loop
    sets, draws, distances = [one.cpu().numpy() for one in (generated, real)], np.random.RandomState(seed), []
    for _ in range(subsets):
        pause()
        drawn = [rows[draws.choice(len(rows), subset_size, replace=False)] for rows in sets]
        distances.append(kernel_mmd(*drawn, **options))
    return {
        "kernel_distance_mean": float(np.mean(distances)),
        "kernel_distance_std": float(np.std(distances)),
        "subsets": subsets,
        "subset_size": subset_size,
    }


def gaussian_kernel_distance(
    real: torch.Tensor, generated: torch.Tensor, sigma: float = SIGMA, batch_size: int = 500
) -> float:
    """Estimate 1000 times the squared maximum mean discrepancy of unit rows, kernel exp(-|x - y|^2 / 2 sigma^2).

    Unbiased: it can be a little below 0 for equal distributions. Rows are divided by their length first; a row of
    zeros stays. At a sigma far above 2, the largest distance of unit rows, the kernel is nearly linear in |x - y|^2:
    it is the means' distance above all that counts.

    Source: Jayasumana et al., arXiv 2401.09603, section 5, who chose sigma = 10 for CLIP's features: called CMMD with
    these alone, here kept for every extractor. Unbiased by Gretton et al., JMLR 13, 2012, equation 3.

    Args:
        real: [N, F].
        generated: [M, F].
        sigma: above 0.
        batch_size: rows whose kernel values are held at a time; without effect on the result.

    Raises:
        ValueError: `sigma` or `batch_size` out of range, fewer than 2 rows, different numbers of features, or a
            value that is not finite.
    """
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; accepted is above 0")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; accepted is 1 or more")
    real, generated = check_pair(real, generated, ("real", "generated"), least=2)
    real, generated = (F.normalize(rows, dim=1) for rows in (real, generated))

    def kernel_sum(first: torch.Tensor, second: torch.Tensor) -> float:
        total, lengths = 0.0, second.square().sum(dim=1)  # 1, or 0 of a row of zeros
        for rows in first.split(batch_size):
            pause()
            squares = rows.square().sum(dim=1, keepdim=True) + lengths - 2 * rows @ second.T
            total += torch.exp(-squares / (2 * sigma**2)).sum().item()
        return total

    n, m = len(real), len(generated)
    within = sum((kernel_sum(rows, rows) - len(rows)) / (len(rows) * (len(rows) - 1)) for rows in (real, generated))
    return CMMD_SCALE * (within - 2 * kernel_sum(real, generated) / (n * m))


def inception_score(logits: torch.Tensor, splits: int = 10, shuffle: bool = True, seed: int = SEED) -> dict:
    """Compute exp of the mean divergence of p(y|x) from p(y), averaged over splits.

    p(y) is the mean of one split. The score is 1 to the number of classes, and rises with the rows in a split, so
    only equal numbers of rows and splits can be compared.

    Source: Salimans et al., arXiv 1606.03498, section 4; by torch-fidelity's own function, in float64.

    Args:
        logits: [N, C], not normalised.
        splits: parts of the rows; each gives a score.
        shuffle: shuffle the rows by `seed` before they are split, as they may be in the order of the classes.

    Returns:
        `inception_score_mean` and `inception_score_std` over the splits, `splits`.

    Raises:
        ValueError: no splits, fewer rows than splits, or a value that is not finite.
    """
    if splits < 1:
        raise ValueError(f"splits is {splits}; accepted is 1 or more")
    logits = check_features(logits, "logit", least=splits)
    # A class whose probability underflows in a whole split would make torch-fidelity's score 0 x inf, not a number.
    logits = (logits - logits.amax(dim=1, keepdim=True)).clamp(min=SMALLEST_LOGIT)
    result = isc_features_to_metric(logits, splits, shuffle, seed)
    return {
        "inception_score_mean": result[KEY_METRIC_ISC_MEAN],
        "inception_score_std": result[KEY_METRIC_ISC_STD],
        "splits": splits,
    }
