"""Find copies by nearest training rows, and measure diversity over seeds by pairwise distances."""

import numpy as np
import torch

from eval.metrics.checks import check_features, check_pair


def nearest_training(
    query: torch.Tensor, training: torch.Tensor, batch_size: int = 250
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the nearest training row of each query row.

    The search is by matrix products in float64; the distance of the row it finds is then taken from the difference,
    so that an exact copy has distance 0.

    Args:
        query: features [M, F].
        training: features [N, F].
        batch_size: query rows at a time; memory is about batch_size x N x 8 bytes.

    Returns:
        Euclidean distances, float64 [M], and indices into `training`, int64 [M].

    Raises:
        ValueError: no rows, different numbers of features, a value that is not finite, or `batch_size` below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; accepted is 1 or more")
    query, training = check_pair(query, training, ("query", "training"))
    indices = torch.cat([torch.cdist(rows, training).argmin(dim=1) for rows in query.split(batch_size)])
    return (query - training[indices]).norm(dim=1), indices


def authentic(query: torch.Tensor, training: torch.Tensor, batch_size: int = 250) -> torch.Tensor:
    """Tell which query rows are authentic: their nearest training row has another training row nearer to it.

    A model that copies puts samples nearer to a training row than the training rows lie to each other. The mean over
    samples, x 100, is AuthPct; new real images of the same distribution have some value below 100 too.

    Source: Alaa et al., arXiv 2102.08921, section 4.3; in the features themselves, as Stein et al., arXiv 2306.04675,
    have it.

    Args:
        query: features [M, F].
        training: features [N, F], N at least 2.
        batch_size: rows at a time; memory is about batch_size x N x 8 bytes.

    Returns:
        bool [M].

    Raises:
        ValueError: as in `nearest_training`, or fewer than 2 training rows.
    """
    check_features(training, "training", least=2)
    distances, indices = nearest_training(query, training, batch_size)
    rows, hit = indices.unique(return_inverse=True)
    training = training.double()
    gaps = []
    for batch in rows.split(batch_size):
        others = torch.cdist(training[batch], training)
        others[torch.arange(len(batch)), batch] = torch.inf
        gaps.append((training[batch] - training[others.argmin(dim=1)]).norm(dim=1))  # without rounding, as above
    return distances > torch.cat(gaps)[hit]


def compare_nearest(samples: torch.Tensor, test: torch.Tensor, percentile: float = 1.0, bins: int = 50) -> dict:
    """Compare nearest training distances of samples with those of test images, which no model copied.

    The threshold is the `percentile`-th percentile of the test images' distances: a sample at it or nearer is nearer
    to a training image than almost every new real image is. Samples that are as far from the training images as test
    images are have a `copy_fraction` of about percentile / 100, and not of 0. CIFAR-10's test set has near-duplicates
    of training images, 3.3 % of it by Barz and Denzler (arXiv 1902.00423), so that its 1st percentile is strict.

    Args:
        samples: distances of samples from `nearest_training`, [M].
        test: distances of test images to the same training rows under the same extractor, [T].
        percentile: above 0, below 100; T must be at least 100 / percentile.
        bins: of the histogram, equally wide from 0 to the largest distance.

    Returns:
        `copy_fraction` (0 to 1), `copy_threshold`, `copy_percentile`, `nearest_distance_median`,
        `nearest_distance_median_test`, `n`, `n_test`, and `histogram` with `edges` (bins + 1) and the counts
        `samples` and `test`.

    Raises:
        ValueError: distances that are none or not [N], too few of the test images, or a percentile or number of bins
            out of range.
    """
    if not 0 < percentile < 100:
        raise ValueError(f"percentile is {percentile}; accepted is above 0 and below 100")
    if bins < 1:
        raise ValueError(f"bins is {bins}; accepted is 1 or more")
    sample_distances, test_distances = _checked_distances(samples, "sample"), _checked_distances(test, "test")
    if len(test_distances) * percentile < 100:
        raise ValueError(
            f"{len(test_distances)} test distances are too few for percentile {percentile}: 100 / percentile needed"
        )
    threshold = float(np.percentile(test_distances, percentile))
    edges = np.linspace(0, max(sample_distances.max(), test_distances.max()) or 1.0, bins + 1)
    return {
        "copy_fraction": float((sample_distances <= threshold).mean()),
        "copy_threshold": threshold,
        "copy_percentile": percentile,
        "nearest_distance_median": float(np.median(sample_distances)),
        "nearest_distance_median_test": float(np.median(test_distances)),
        "n": len(sample_distances),
        "n_test": len(test_distances),
        "histogram": {
            "edges": edges.tolist(),
            "samples": np.histogram(sample_distances, edges)[0].tolist(),
            "test": np.histogram(test_distances, edges)[0].tolist(),
        },
    }


def pairwise_distance(features: torch.Tensor) -> float:
    """Average the Euclidean distance between two seeds of a prompt, over pairs and prompts.

    Args:
        features: of P prompts with S seeds each, [P, S, F], S at least 2.

    Raises:
        ValueError: another shape, fewer than 2 seeds, or a value that is not finite.
    """
    if features.ndim != 3:
        raise ValueError(f"features are {tuple(features.shape)}; accepted is [prompts, seeds, F]")
    prompts, seeds, _ = features.shape
    if prompts < 1 or seeds < 2:
        raise ValueError(f"{prompts} prompts with {seeds} seeds; accepted is 1 prompt or more with 2 seeds or more")
    features = check_features(features.flatten(0, 1), "seed").unflatten(0, (prompts, seeds))
    # pdist takes differences: no rounding as in matrix products, which would hold equal seeds for different
    return torch.stack([torch.pdist(one).mean() for one in features]).mean().item()


def _checked_distances(distances: torch.Tensor, name: str) -> np.ndarray:
    if distances.ndim != 1 or not len(distances):
        raise ValueError(f"{name} distances are {tuple(distances.shape)}; accepted is [N] with N of 1 or more")
    if not torch.isfinite(distances).all() or (distances < 0).any():
        raise ValueError(f"{name} distances reach from {distances.min()} to {distances.max()}; accepted is 0 or more")
    return distances.double().cpu().numpy()
