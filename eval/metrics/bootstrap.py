"""Estimate confidence intervals by the bootstrap (Efron, Annals of Statistics 7, 1979).

Samples are drawn again with replacement.

All of them are basic (reverse percentile) intervals: 2 estimate - quantile of the resampled values. The percentile
interval, the quantiles themselves, is wrong for a Frechet distance: a resample has only about 63 % of the distinct
rows, so its distance is biased upward once more, on top of the bias that the estimate has, and the whole percentile
interval can lie above the estimate. Mirrored at the estimate, the bias is taken off instead of doubled.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import torch
from tqdm import tqdm

from eval.metrics.checks import check_features, check_pair
from eval.metrics.frechet import Statistics, check_count, weighted_distance
from eval.metrics.manifold import ball_hits
from eval.metrics.pauses import pause

Z = NormalDist().inv_cdf(0.975)


def bootstrap_interval(
    statistic: Callable[[torch.Tensor], float],
    n: int,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict:
    """Estimate the basic bootstrap interval of a statistic of `n` samples.

    Args:
        statistic: takes the drawn rows, int64 [n], and returns its value on them.
        n: samples, 2 or more.
        resamples: enough that a tail holds one: at least 2 / (1 - confidence).
        confidence: above 0, below 1.
        seed: of the draws, which depend on nothing else but `n` and `resamples`.

    Returns:
        `estimate` (on all rows once), `low`, `high`, `bias` (mean of the resampled values - estimate), `confidence`,
        `resamples`. `low` and `high` are about the value without the bias that the estimate has at this n, and need
        not hold the estimate; with `bias` added to both they are about the value at this n.

    Raises:
        ValueError: `n`, `resamples` or `confidence` out of range, or a value of the statistic that is not finite.
    """
    draws = _draws(n, resamples, confidence, seed)
    estimate = float(statistic(torch.arange(n)))
    return _basic_interval(estimate, [float(statistic(rows)) for rows in draws], confidence)


def interval_at_n(interval: dict) -> dict:
    """Move both ends of an interval by the bias: it is then about the value at this n.

    Args:
        interval: as from `bootstrap_interval`.

    Returns:
        `low`, `high`, `confidence`, `resamples`.
    """
    low, high = interval["low"] + interval["bias"], interval["high"] + interval["bias"]
    return {"low": low, "high": high, "confidence": interval["confidence"], "resamples": interval["resamples"]}


def mean_interval(values: torch.Tensor) -> dict:
    """Estimate the interval of the mean of values [n]; returns as `interval_at_n`."""
    return interval_at_n(bootstrap_interval(lambda rows: values[rows].mean().item(), len(values)))


def fraction_interval(hits: torch.Tensor) -> dict:
    """The interval of the mean of hits [n], 0 or 1, about the value at this n; returns as `interval_at_n`.

    That of `mean_interval`, cut to 0..1. Of hits that are all equal, no resample differs: the other end is that of
    Wilson's score interval (Journal of the American Statistical Association 22, 1927), z^2 / (n + z^2) away.
    """
    interval, n = mean_interval(hits), len(hits)
    low, high = max(interval["low"], 0.0), min(interval["high"], 1.0)
    width = Z**2 / (n + Z**2)
    if hits.min() == 1:
        low = 1 - width
    elif hits.max() == 0:
        high = width
    return interval | {"low": low, "high": high}


def check_resamples(resamples: int, confidence: float = 0.95) -> None:
    """Refuse so few resamples that a tail holds none.

    Raises:
        ValueError: fewer than 2 / (1 - confidence).
    """
    least = math.ceil(round(2 / (1 - confidence), 6))
    if resamples < least:
        raise ValueError(f"resamples is {resamples}; accepted is {least} or more for a confidence of {confidence}")


def frechet_interval(
    features: torch.Tensor,
    reference: Statistics,
    resamples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict:
    """Estimate the basic bootstrap interval of the Frechet distance to a fixed reference.

    The same draws and, to rounding, the same values as `bootstrap_interval` with
    `eval.metrics.frechet.frechet_distance`, but by `eval.metrics.frechet.weighted_distance`.

    `low` and `high` are about the distance of infinitely many samples; with `bias` added, about the distance at this
    n, as FID@n is. Near a distance of 0 `low` can be negative. The sampling of the reference is not in the interval.

    Args:
        features: [n, F].
        reference: of the same extractor.
        resamples, confidence, seed: as in `bootstrap_interval`.

    Returns:
        As `bootstrap_interval`.

    Raises:
        ValueError: as in `bootstrap_interval`, fewer than F + 1 rows, a value that is not finite, or a reference of
            another number of features.
    """
    features = check_features(features, "sample")
    n, dim = features.shape
    if dim != len(reference.mu):
        raise ValueError(f"{dim} features against {len(reference.mu)}: not of the same extractor")
    check_count(n, dim)
    draws = _draws(n, resamples, confidence, seed)
    distance = weighted_distance(features.cpu().numpy(), reference)
    draws = tqdm(draws, desc="bootstrap", total=resamples, leave=False)  # minutes at 2048 features
    values = []
    for rows in draws:
        pause()
        values.append(distance(torch.bincount(rows, minlength=n).numpy()))
    return _basic_interval(distance(np.ones(n, dtype=np.int64)), values, confidence)


def kernel_interval(
    real: torch.Tensor,
    generated: torch.Tensor,
    resamples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 500,
) -> dict:
    """Estimate the basic bootstrap interval of the kernel distance to fixed real features.

    The distance is the unbiased estimate on all rows (Gretton et al., JMLR 13, 2012, equation 3) with the kernel of
    `eval.metrics.kernel.kernel_distance`, (x.y / F + 1)^3; a resample weighs each row by how often it was drawn.

    Args:
        real: [N, F].
        generated: [M, F].
        resamples, confidence, seed: as in `bootstrap_interval`.
        batch_size: rows whose kernel values are held at a time; without effect on the result.

    Returns:
        As `bootstrap_interval`.

    Raises:
        ValueError: as in `bootstrap_interval`, and for features as in `eval.metrics.checks.check_pair`.
    """
    real, generated = check_pair(real, generated, ("real", "generated"), least=2)
    n, m = len(generated), len(real)
    multiplicities = _multiplicities(n, resamples, confidence, seed)

    def kernel(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first @ second.T / first.shape[1] + 1) ** 3

    def diagonal(rows: torch.Tensor) -> torch.Tensor:
        return ((rows**2).sum(dim=1) / rows.shape[1] + 1) ** 3  # each row's kernel with itself

    pairs, cross = torch.zeros(multiplicities.shape[1], dtype=torch.float64), torch.empty(n, dtype=torch.float64)
    for rows in torch.arange(n).split(batch_size):
        pause()
        pairs += (kernel(generated[rows], generated) @ multiplicities * multiplicities[rows]).sum(dim=0)
        cross[rows] = kernel(generated[rows], real).mean(dim=1)
    among_real = sum(kernel(rows, real).sum().item() for rows in real.split(batch_size))
    among_real = (among_real - diagonal(real).sum().item()) / (m * (m - 1))
    own = diagonal(generated) @ multiplicities
    values = (pairs - own) / (n * (n - 1)) - 2 * (cross @ multiplicities) / n + among_real
    return _basic_interval(values[0].item(), values[1:].tolist(), confidence)


def manifold_intervals(
    real: torch.Tensor,
    generated: torch.Tensor,
    k: int,
    resamples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 500,
) -> dict[str, dict]:
    """Estimate intervals of precision, density and coverage, with the real features held fixed.

    Recall has none: a row that is drawn twice is its own neighbour, so that the balls of a resample shrink.

    Args:
        real: [N, F].
        generated: [M, F].
        k: neighbours, as in `eval.metrics.manifold.manifold_metrics`.
        resamples, confidence, seed: as in `bootstrap_interval`.
        batch_size: rows whose distances are held at a time; without effect on the result.

    Returns:
        By name, about the value at this n, as `interval_at_n`, cut to the range of the figure.

    Raises:
        ValueError: as in `bootstrap_interval`, `k` below 1, and for features as in `eval.metrics.checks.check_pair`.
    """
    if k < 1:
        raise ValueError(f"k is {k}; accepted is 1 or more")
    real, generated = check_pair(real, generated, ("real", "generated"), least=k + 1)
    multiplicities = _multiplicities(len(generated), resamples, confidence, seed)
    balls, covered = torch.zeros(len(generated), dtype=torch.float64), torch.zeros(multiplicities.shape[1])
    for hits in ball_hits(real, generated, k, batch_size):
        balls += hits.sum(dim=0)  # how many real balls a generated row is in
        covered += (hits.float() @ (multiplicities > 0).float() > 0).sum(dim=0)
    values = {
        "precision": (balls > 0).double() @ multiplicities / len(generated),
        "density": balls @ multiplicities / (k * len(generated)),
        "coverage": covered.double() / len(real),
    }
    intervals = {
        name: interval_at_n(_basic_interval(value[0].item(), value[1:].tolist(), confidence))
        for name, value in values.items()
    }
    for name, interval in intervals.items():
        most = math.inf if name == "density" else 1.0
        intervals[name] |= {end: min(max(interval[end], 0.0), most) for end in ("low", "high")}
    return intervals


def _multiplicities(n: int, resamples: int, confidence: float, seed: int) -> torch.Tensor:
    """Count each of `n` rows: once each, then in each resample; float64 [n, 1 + resamples]."""
    counts = [torch.bincount(rows, minlength=n) for rows in _draws(n, resamples, confidence, seed)]
    return torch.stack([torch.ones(n, dtype=torch.int64), *counts], dim=1).double()


def _draws(n: int, resamples: int, confidence: float, seed: int):
    """Draw `resamples` times `n` row numbers, int64 [n], one after the other."""
    if n < 2:
        raise ValueError(f"n is {n}; accepted is 2 or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; accepted is above 0 and below 1")
    check_resamples(resamples, confidence)
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(n, (n,), generator=generator) for _ in range(resamples))


def _basic_interval(estimate: float, values: list[float], confidence: float) -> dict:
    resampled = np.array(values)
    if not (np.isfinite(resampled).all() and math.isfinite(estimate)):
        raise ValueError(f"the statistic is {estimate}, resampled {resampled.min()} to {resampled.max()}: not finite")
    lower, upper = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {
        "estimate": estimate,
        "low": float(2 * estimate - upper),
        "high": float(2 * estimate - lower),
        "bias": float(resampled.mean() - estimate),
        "confidence": confidence,
        "resamples": len(values),
    }
