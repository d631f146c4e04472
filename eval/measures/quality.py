"""Measure fidelity, diversity and copies of training images."""

from pathlib import Path

import torch

from eval.extractors.base import Extractor, extract_features
from eval.extractors.features import FeatureSet
from eval.extractors.inception import INCEPTION
from eval.extractors.statistics import reference_protocol, reference_statistics
from eval.metrics.bootstrap import interval_at_n, kernel_interval, manifold_intervals
from eval.metrics.checks import in_canonical_order
from eval.metrics.copying import copying_statistic
from eval.metrics.extrapolation import frechet_distance_infinity
from eval.metrics.frechet import Statistics
from eval.metrics.kernel import gaussian_kernel_distance, inception_score, kernel_distance
from eval.metrics.manifold import NEIGHBOURS, manifold_metrics
from eval.metrics.nearest import authentic, compare_nearest, nearest_training, pairwise_distance
from eval.metrics.sliced import DIRECTIONS, sliced_wasserstein
from eval.protocol import measured_with, tensor_sha256
from eval.samples.images import ImageSet, real_images
from mobilediff.captions import CLASS_NAMES

SUBSETS, MAX_SUBSET_SIZE = 100, 1000
MAX_COPY_QUERIES = 1000
MAX_SEEDS = 100
LINE = 1.5  # times the images that a covariance of full rank needs: sizes apart enough for a line over 1 / n


class TrainingFeatures:
    """Hold features of CIFAR-10's training images, and test images' nearest distances to them.

    Attributes:
        training: features of all training images, [N, F].
        sha256: hash of these.
        test: of the first `MAX_COPY_QUERIES` test images, [T, F].
        test_distances: of these, float64 [T].
        test_authentic: the fraction of these that is authentic.
    """

    def __init__(self, extractor: Extractor, data: str | Path | None, device: torch.device | str = "cpu"):
        layer, training, test = extractor.layer, *(real_images(data, split).images for split in ("train", "test"))
        self.training = extract_features(extractor, training, (layer,), device=device)[layer]
        self.sha256 = tensor_sha256(self.training)
        self.test = extract_features(extractor, test[:MAX_COPY_QUERIES], (layer,), device=device)[layer]
        self.test_distances = nearest_training(self.test, self.training)[0]
        self.test_authentic = _fraction(authentic(self.test, self.training))


def measure_quality(
    measured: FeatureSet,
    extractor: Extractor,
    reference: str = "train",
    data: str | Path | None = None,
    training: TrainingFeatures | None = None,
) -> dict:
    """Measure fidelity, diversity and copies: figures of features beyond mean and covariance.

    Args:
        measured: images and their features.
        extractor: from `choose_extractor`.
        reference: as in `reference_statistics`; its statistics must hold features.
        data: CIFAR-10, for an extractor without statistics on disk.
        training: features of the training images, among which copies are searched; None for no search.

    Returns:
        `n`; the figures of `kernel_distance` (`kernel_inception_distance` under Inception) and `manifold_metrics`;
        `gaussian_kernel_distance`, `sliced_wasserstein` and its `directions`; `frechet_distance_infinity` of all
        images, where they are enough for a line; where the extractor has classes `classifier_score` or
        `inception_score`, mean and std; `seed_distance` for samples of class prompts, the mean distance between the
        features of one prompt's seeds; `copies` with `training`; `intervals` of the kernel distance, precision,
        density and coverage; `protocol`, `samples`.

    Raises:
        ValueError: too few images, images of the wrong size, or a reference without features.
    """
    images, device = measured.images, measured.device
    statistics = reference_statistics(extractor, reference, data, device)
    real = statistics.kept_features()
    features = measured.of(extractor)
    generated = features[extractor.layer]
    n = min(len(real), len(generated))
    subset_size = min(MAX_SUBSET_SIZE, n)
    # both draw rows by number: in an order of the values a figure is of the set of images alone
    ordered = in_canonical_order(real[:n]), in_canonical_order(generated[:n])
    scores = kernel_distance(*ordered, subsets=SUBSETS, subset_size=subset_size)
    if extractor.logits:
        scores |= inception_score(in_canonical_order(features[extractor.logits[0]][:n]))
    manifold, intervals = _manifold(real, generated)
    result = {"n": n} | _named(scores, extractor) | manifold
    result |= _seed_distance(generated, images)
    result |= {"gaussian_kernel_distance": gaussian_kernel_distance(*ordered)}
    result |= {"sliced_wasserstein": sliced_wasserstein(*ordered), "directions": DIRECTIONS}
    if len(generated) >= LINE * (generated.shape[1] + 1):
        result["frechet_distance_infinity"] = frechet_distance_infinity(in_canonical_order(generated), statistics)
    if training is not None:
        result["copies"] = _copies(generated[:MAX_COPY_QUERIES], training)
    key = next(key for key in result if key.startswith("kernel_") and key.endswith("_mean"))
    result["intervals"] = {key: interval_at_n(kernel_interval(real[:n], generated[:n]))}
    result["intervals"] |= intervals
    protocol = extractor.protocol(images.images) | reference_protocol(reference, statistics) | {"reference_n": n}
    return result | {"protocol": protocol | measured_with(device), "samples": images.protocol}


def measure_manifold(measured: FeatureSet, extractor: Extractor, statistics: Statistics) -> dict:
    """Measure those figures of `measure_quality` that take no kernel, which is the longest to compute.

    Args:
        measured, extractor: as there.
        statistics: of the reference, with features.

    Returns:
        `n`, the figures of `manifold_metrics`, `seed_distance` for samples of class prompts, `intervals`.

    Raises:
        ValueError: as there.
    """
    real, generated = statistics.kept_features(), measured.of(extractor)[extractor.layer]
    manifold, intervals = _manifold(real, generated)
    n = min(len(real), len(generated))
    return {"n": n} | manifold | _seed_distance(generated, measured.images) | {"intervals": intervals}


def _copies(samples: torch.Tensor, training: TrainingFeatures) -> dict:
    """Compare samples [at most `MAX_COPY_QUERIES`, F] and test images by how near they are to training images."""
    distances = nearest_training(samples, training.training)[0]
    result = compare_nearest(distances, training.test_distances)
    result |= {"authentic_fraction": _fraction(authentic(samples, training.training))}
    result |= {"authentic_fraction_test": training.test_authentic}
    result |= copying_statistic(samples, training.test, training.training)
    return result | {"n_training": len(training.training), "training_features_sha256": training.sha256}


def _fraction(hits: torch.Tensor) -> float:
    return hits.double().mean().item()


def _manifold(real: torch.Tensor, generated: torch.Tensor) -> tuple[dict, dict]:
    """Compute the manifold's figures of equally many rows, and their intervals."""
    n = min(len(real), len(generated))
    pair = real[:n], generated[:n]
    return manifold_metrics(*pair, k=NEIGHBOURS), manifold_intervals(*pair, NEIGHBOURS)


def _seed_distance(features: torch.Tensor, images: ImageSet) -> dict:
    seeds = _by_class(features, images)
    return {"seed_distance": pairwise_distance(torch.stack(seeds))} if seeds else {}


def _named(scores: dict, extractor: Extractor) -> dict:
    if extractor.name == INCEPTION:
        return {key.replace("kernel_", "kernel_inception_"): value for key, value in scores.items()}
    return {key.replace("inception_", "classifier_"): value for key, value in scores.items()}


def _by_class(features: torch.Tensor, images: ImageSet) -> list[torch.Tensor]:
    """Group features of each class's first samples, [S, F], equally many; none if a class has fewer than two."""
    if images.class_labels is None:
        return []
    groups = [features[images.class_labels == label][:MAX_SEEDS] for label in range(len(CLASS_NAMES))]
    seeds = min(len(group) for group in groups)
    return [group[:seeds] for group in groups] if seeds >= 2 else []
