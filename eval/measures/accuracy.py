"""Measure how often the judge names the class and the noun of images."""

import torch

from eval.extractors.base import Extractor, extract_features
from eval.metrics.accuracy import accuracies, accuracy_intervals
from eval.protocol import measured_with
from eval.samples.images import ImageSet
from mobilediff.captions import CLASS_NAMES


def measure_accuracy(images: ImageSet, judge: Extractor, device: torch.device | str = "cpu") -> dict:
    """The judge's accuracies of labelled images.

    Returns:
        `n`, the figures of `accuracies`, `intervals` of the class accuracy and of both noun figures, `protocol`,
        `samples`.

    Raises:
        ValueError: the images have no labels, or are of the wrong size.
    """
    if images.class_labels is None:
        raise ValueError("the images have no labels: accuracy needs a folder or npz file made by eval.generate")
    features = extract_features(judge, images.images, ("class_logits", "noun_logits"), device=device)
    labels = images.class_labels, images.noun_ids
    result = {"n": len(images)} | accuracies(features, *labels, CLASS_NAMES)
    result["intervals"] = accuracy_intervals(features, *labels)
    return result | {"protocol": judge.protocol() | measured_with(device), "samples": images.protocol}
