"""Measure the Frechet distance of images to a reference."""

from pathlib import Path
from typing import Any

import torch

from eval.extractors.base import Extractor
from eval.extractors.features import FeatureSet
from eval.extractors.inception import INCEPTION, INCEPTION_SHA256
from eval.extractors.judge import IMAGE_SIZE, judge_extractor
from eval.extractors.statistics import reference_protocol, reference_statistics
from eval.metrics.accuracy import accuracies, accuracy_intervals
from eval.metrics.bootstrap import frechet_interval, interval_at_n
from eval.metrics.frechet import Statistics, check_count, feature_statistics, frechet_distance
from eval.protocol import measured_with
from mobilediff.captions import CLASS_NAMES
from mobilediff.data import SPLITS


def distance_label(extractor: Extractor, n: int) -> str:
    """Name the distance: FID under Inception's published weights alone, FID@n unless n is 50,000."""
    if extractor.name != INCEPTION:
        return f"Frechet distance ({extractor.name}, n = {n})"
    if not extractor.sha256.startswith(INCEPTION_SHA256):  # a file of the user's own, in these shapes
        return f"Frechet distance ({extractor.name}, weights {extractor.sha256[:12]}, n = {n})"
    if n == 50000:
        return "FID"
    return f"FID@{n // 1000}k" if n % 1000 == 0 else f"FID@{n}"


def distance_interval(features: torch.Tensor, reference: Statistics, resamples: int) -> dict:
    """Estimate the interval of the distance at this n, cut at 0; arguments and errors as in `frechet_interval`."""
    interval = interval_at_n(frechet_interval(features, reference, resamples))
    return interval | {"low": max(interval["low"], 0.0)}


def measure_frechet_distance(
    measured: FeatureSet,
    extractor: Extractor,
    reference: str = "train",
    data: str | Path | None = None,
    resamples: int = 100,
) -> dict:
    """Measure the Frechet distance, its floor and, with known labels, the judge's accuracies.

    The floor is the distance of CIFAR-10's test set to its training set.

    Args:
        measured: images and their features.
        extractor: from `choose_extractor`.
        reference: as in `reference_statistics`.
        data: CIFAR-10, for an extractor without statistics on disk.
        resamples: of the bootstrap intervals, 0 for none.

    Returns:
        `frechet_inception_distance`, or `frechet_distance_` and the extractor; `floor`, `n`, the accuracies,
        `intervals` of the distance at this n and of the accuracies, `protocol`, `samples`.

    Raises:
        ValueError: too few images, images of the wrong size, or stale statistics.
    """
    images, device = measured.images, measured.device
    statistics = reference_statistics(extractor, reference, data, device)
    check_count(len(images), len(statistics.mu))
    height, width = images.images.shape[2:]
    labelled = images.class_labels is not None and height == width >= IMAGE_SIZE
    features = measured.of(extractor)[extractor.layer]
    result: dict[str, Any] = {extractor.result_key: frechet_distance(feature_statistics(features), statistics)}
    protocol = extractor.protocol(images.images) | reference_protocol(reference, statistics)
    protocol["image_size"] = f"{width}x{height}"
    if reference in SPLITS:
        result["floor"] = frechet_distance(*(reference_statistics(extractor, name, data, device) for name in SPLITS))
        protocol["floor_is"] = "CIFAR-10 test against train"
    result["n"] = len(images)
    judged = measured.of(judge_extractor()) if labelled else None
    if judged is not None:
        result |= accuracies(judged, images.class_labels, images.noun_ids, CLASS_NAMES)
    if resamples:
        result["intervals"] = {extractor.result_key: distance_interval(features, statistics, resamples)}
        if judged is not None:
            result["intervals"] |= accuracy_intervals(judged, images.class_labels, images.noun_ids)
    return result | {"protocol": protocol | measured_with(device), "samples": images.protocol}
