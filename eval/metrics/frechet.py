"""Compute the Frechet distance between Gaussians fitted to features."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from eval.metrics.checks import check_features


@dataclass(frozen=True)
class Statistics:
    """Hold mean and covariance of features, and the first features themselves.

    Attributes:
        mu: mean, float64 [F].
        sigma: covariance (n - 1), float64 [F, F].
        n: images it was fitted to.
        metadata: the extractor's protocol, hash and number of the images.
        features: of the first images, float16 [at most `MAX_FEATURES`, F], or None where they were not kept.

    Raises:
        ValueError: mean or covariance holds a value that is not finite.
    """

    mu: np.ndarray
    sigma: np.ndarray
    n: int
    metadata: dict[str, str]
    features: np.ndarray | None = None

    def __post_init__(self):
        for name, values in (("mean", self.mu), ("covariance", self.sigma)):
            if not np.isfinite(values).all():
                raise ValueError(f"the {name} of {len(self.mu)} features holds a value that is not finite")

    def kept_features(self) -> torch.Tensor:
        """Return the features of the first images, float32 [N, F] with the precision of float16.

        Raises:
            ValueError: they were not kept.
        """
        if self.features is None:
            raise ValueError(
                "these statistics hold no features, only their mean and covariance: python -m eval.reference makes "
                "a file that holds both"
            )
        return torch.from_numpy(self.features).float()


def check_count(n: int, dim: int) -> None:
    """Refuse too few images for a Gaussian of `dim` features.

    Raises:
        ValueError: fewer than `dim` + 1, whose covariance cannot have full rank.
    """
    if n < max(2, dim + 1):
        raise ValueError(f"{n} images are too few: the covariance of {dim} features needs at least {dim + 1}")


def feature_statistics(features: torch.Tensor, **metadata: str) -> Statistics:
    """Fit a Gaussian to features [N, F] in float64, by torch-fidelity's own function.

    Raises:
        ValueError: not [N, F] of floats, fewer than F + 1 rows, whose covariance cannot have full rank, or a value
            that is not finite.
    """
    features = check_features(features, "feature")
    check_count(*features.shape)
    fitted = fid_features_to_statistics(features)
    return Statistics(fitted["mu"], fitted["sigma"], len(features), metadata)


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """Compute |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two Gaussians.

    Source: Heusel et al., arXiv 1706.08500, equation 6; by torch-fidelity's own function, in float64. Rounding, which
    takes the distance of equal Gaussians below 0, is cut off.

    Raises:
        ValueError: the two have different numbers of features.
    """
    if first.mu.shape != second.mu.shape:
        raise ValueError(f"{len(first.mu)} features against {len(second.mu)}: not of the same extractor")
    fitted = [{"mu": statistics.mu, "sigma": statistics.sigma} for statistics in (first, second)]
    return max(fid_statistics_to_metric(*fitted, verbose=False)[KEY_METRIC_FID], 0.0)


def weighted_distance(features: np.ndarray, reference: Statistics) -> Callable[[np.ndarray], float]:
    """Make the Frechet distance to `reference`, a function of how often each row of features counts.

    To rounding the value of `frechet_distance`, but faster for many draws of the same rows: tr (S1 S2)^(1/2) is the
    sum of the roots of the eigenvalues of S2^(1/2) S1 S2^(1/2), which is symmetric: the covariance of the rows times
    S2^(1/2).

    Args:
        features: float64 [N, F].
        reference: of the same extractor.

    Returns:
        The distance of counts, int64 [N], whose sum is the number of images.
    """
    centre = features.mean(axis=0)  # taken off first, so that the moments below do not cancel
    features = features - centre
    difference = centre - reference.mu
    eigenvalues, vectors = np.linalg.eigh(reference.sigma)
    root = (vectors * np.sqrt(eigenvalues.clip(min=0))) @ vectors.T  # S2^(1/2)
    scaled = features @ root
    square_norms = (features**2).sum(axis=1)
    reference_trace = np.trace(reference.sigma)

    def distance(counts: np.ndarray) -> float:
        multiplicities, drawn, n = counts.astype(np.float64), counts > 0, counts.sum()
        mu = multiplicities @ features / n
        rows = scaled[drawn] * np.sqrt(multiplicities[drawn])[:, None]
        product = (rows.T @ rows - n * np.outer(mu @ root, mu @ root)) / (n - 1)  # S2^(1/2) S1 S2^(1/2)
        trace = (multiplicities @ square_norms - n * mu @ mu) / (n - 1)  # tr S1
        roots = np.sqrt(np.linalg.eigvalsh(product).clip(min=0)).sum()
        return max(float(((mu + difference) ** 2).sum() + trace + reference_trace - 2 * roots), 0.0)

    return distance
