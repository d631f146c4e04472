"""Measure class and noun accuracy of images by the judge."""

from eval.extractors.base import Extractor
from eval.extractors.features import FeatureSet
from eval.metrics.accuracy import accuracies, accuracy_intervals
from eval.protocol import measured_with
from mobilediff.captions import CLASS_NAMES


def measure_accuracy(measured: FeatureSet, judge: Extractor) -> dict:
    """Measure the judge's accuracies of labelled images.

    Returns:
        `n`, the figures of `accuracies`, `intervals` of the class accuracy and of both noun figures, `protocol`,
        `samples`.

    Raises:
        ValueError: the images have no labels, or are of the wrong size.
    """
    images = measured.images
    if images.class_labels is None:
        raise ValueError("the images have no labels: accuracy needs a folder or npz file made by eval.generate")
    features = measured.of(judge)
    labels = images.class_labels, images.noun_ids
    result = {"n": len(images)} | accuracies(features, *labels, CLASS_NAMES)
    result["intervals"] = accuracy_intervals(features, *labels)
    protocol = judge.protocol(images.images)
    return result | {"protocol": protocol | measured_with(measured.device), "samples": images.protocol}
