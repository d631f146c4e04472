"""Measure the Frechet distance of images under an extractor from outside, beside the judge's of the same images."""

from dataclasses import replace

from eval.extractors.base import Extractor
from eval.extractors.features import FeatureSet
from eval.extractors.judge import IMAGE_SIZE, judge_extractor
from eval.extractors.pixels import shrinking, shrunk
from eval.extractors.statistics import reference_protocol, reference_statistics
from eval.measures.frechet import distance_interval
from eval.metrics.frechet import check_count, feature_statistics, frechet_distance
from eval.protocol import measured_with


def outside_protocol(outside: Extractor) -> dict[str, str]:
    """Return the two extractors' part of a protocol."""
    return outside.protocol() | {"judge_sha256": judge_extractor().sha256}


def measure_outside(measured: FeatureSet, outside: Extractor, resamples: int = 100) -> dict:
    """Measure the distances to CIFAR-10's training set under both extractors.

    Larger images are brought to the size of CIFAR-10's first, for both: enlarged from another size, the extractor from
    outside would see other edges.

    Args:
        measured: images and their features.
        outside: an extractor whose statistics ship.
        resamples: of the bootstrap intervals.

    Returns:
        Both distances under the extractors' keys, `n`, `intervals` at this n, `protocol`, `samples`.

    Raises:
        ValueError: too few images for the features of one of the two.
    """
    stated, samples = shrinking(measured.images.images, IMAGE_SIZE), measured.images.protocol
    if stated:
        small = shrunk(measured.images.images, IMAGE_SIZE)
        measured = FeatureSet(replace(measured.images, images=small), measured.device)
    result, intervals = {}, {}
    extractors = judge_extractor(), outside
    statistics = [reference_statistics(extractor, "train", device=measured.device) for extractor in extractors]
    for extractor, reference in zip(extractors, statistics, strict=True):
        check_count(len(measured), len(reference.mu))
        features, key = measured.of(extractor)[extractor.layer], extractor.result_key
        result[key] = frechet_distance(feature_statistics(features), reference)
        intervals[key] = distance_interval(features, reference, resamples)
    protocol = outside_protocol(outside) | stated | reference_protocol("train", statistics[-1])
    result |= {"n": len(measured), "intervals": intervals}
    return result | {"protocol": protocol | measured_with(measured.device), "samples": samples}
