"""What features say beyond one distance: fidelity and diversity, apart, and copies of training images.

    python -m eval.quality --model checkpoints/student-1step --data DIR
    python -m eval.quality --images outputs/one-step --extractor inception

Kernel distance, precision, recall, density and coverage are of the first images and as many of the reference. The
kernel distance is called KID, and the classifier's score Inception score, only under Inception. Copies are looked for
among all of CIFAR-10's training images where there are any (--data), and are left out, with a line, where not.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from eval.bootstrap import interval_at_n, kernel_interval, manifold_intervals
from eval.copies import compare_nearest, nearest_training, pairwise_distance
from eval.extractors import INCEPTION, JUDGE, Extractor, add_extractor_arguments, extract_features
from eval.features import in_canonical_order
from eval.fid import extractor_from_arguments
from eval.images import ImageSet, real_images
from eval.inputs import add_input_arguments, measure_repeatedly
from eval.kernel import inception_score, kernel_distance
from eval.manifold import manifold_metrics
from eval.protocol import measured_with, tensor_sha256
from eval.reference import add_reference_argument, reference_protocol, reference_statistics
from eval.show import show_result
from mobilediff.captions import CLASS_NAMES
from mobilediff.data import DATA_VARIABLE

NEIGHBOURS = 3
SUBSETS, MAX_SUBSET_SIZE = 100, 1000
MAX_COPY_QUERIES = 1000
MAX_SEEDS = 100
LOGITS = {JUDGE: "class_logits", INCEPTION: "logits_unbiased"}


class TrainingFeatures:
    """Features of CIFAR-10's training images, and how near to them test images come; computed once."""

    def __init__(self, extractor: Extractor, data: str | Path | None, device: torch.device | str = "cpu"):
        features = [
            extract_features(extractor, real_images(data, split).images, (extractor.layer,), device=device)
            for split in ("train", "test")
        ]
        self.training, test = (split[extractor.layer] for split in features)
        self.sha256 = tensor_sha256(self.training)
        self.test_distances = nearest_training(test[:MAX_COPY_QUERIES], self.training)[0]


def measure_quality(
    images: ImageSet,
    extractor: Extractor,
    reference: str = "train",
    data: str | Path | None = None,
    device: torch.device | str = "cpu",
    training: TrainingFeatures | None = None,
) -> dict:
    """All figures of one set of images that take features beyond their mean and covariance.

    Args:
        images: what is measured.
        extractor: from `choose_extractor`.
        reference: as in `reference_statistics`; its statistics must hold features.
        data: CIFAR-10, for an extractor without statistics on disk.
        device: what the extractor runs on.
        training: what copies are looked for among, or None.

    Returns:
        `n`; the figures of `kernel_distance` (`kernel_inception_distance` under Inception) and `manifold_metrics`;
        where the extractor has classes `classifier_score` or `inception_score`, mean and std; `seed_distance` for
        samples of class prompts, the mean distance between the features of one prompt's seeds; `copies` with
        `training`; `intervals` of the kernel distance, precision, density and coverage; `protocol`, `samples`.

    Raises:
        ValueError: too few images, images of the wrong size, or a reference without features.
    """
    statistics = reference_statistics(extractor, reference, data, device)
    real = statistics.kept_features()
    names = [extractor.layer, *([LOGITS[extractor.name]] if extractor.name in LOGITS else [])]
    features = extract_features(extractor, images.images, tuple(names), device=device)
    generated = features[extractor.layer]
    n = min(len(real), len(generated))
    subset_size = min(MAX_SUBSET_SIZE, n)
    # both draw rows by number: in an order of the values a figure is of the set of images alone
    ordered = in_canonical_order(real[:n]), in_canonical_order(generated[:n])
    scores = kernel_distance(*ordered, subsets=SUBSETS, subset_size=subset_size)
    if extractor.name in LOGITS:
        scores |= inception_score(in_canonical_order(features[LOGITS[extractor.name]][:n]))
    result = {"n": n} | _named(scores, extractor) | manifold_metrics(real[:n], generated[:n], k=NEIGHBOURS)
    if seeds := _by_class(generated, images):
        result["seed_distance"] = pairwise_distance(torch.stack(seeds))
    if training is not None:
        distances = nearest_training(generated[:MAX_COPY_QUERIES], training.training)[0]
        result["copies"] = compare_nearest(distances, training.test_distances)
        result["copies"] |= {"n_training": len(training.training), "training_features_sha256": training.sha256}
    key = next(key for key in result if key.startswith("kernel_") and key.endswith("_mean"))
    result["intervals"] = {key: interval_at_n(kernel_interval(real[:n], generated[:n]))}
    result["intervals"] |= manifold_intervals(real[:n], generated[:n], NEIGHBOURS)
    protocol = extractor.protocol() | reference_protocol(reference, statistics) | {"reference_n": n}
    return result | {"protocol": protocol | measured_with(device), "samples": images.protocol}


def _named(scores: dict, extractor: Extractor) -> dict:
    if extractor.name == INCEPTION:
        return {key.replace("kernel_", "kernel_inception_"): value for key, value in scores.items()}
    return {key.replace("inception_", "classifier_"): value for key, value in scores.items()}


def _by_class(features: torch.Tensor, images: ImageSet) -> list[torch.Tensor]:
    """Features of each class's first samples, [S, F], as many of each; none if not every class has two."""
    if images.class_labels is None:
        return []
    groups = [features[images.class_labels == label][:MAX_SEEDS] for label in range(len(CLASS_NAMES))]
    seeds = min(len(group) for group in groups)
    return [group[:seeds] for group in groups] if seeds >= 2 else []


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.quality", description=__doc__.splitlines()[0])
    add_input_arguments(parser)
    add_extractor_arguments(parser)
    add_reference_argument(parser)
    args = parser.parse_args(argv)
    extractor, device = extractor_from_arguments(args), PartialState().device
    reference_statistics(extractor, args.reference, args.data, device).kept_features()  # before samples are drawn
    training = None
    if args.data or os.environ.get(DATA_VARIABLE):
        training = TrainingFeatures(extractor, args.data, device)
    else:
        print(f"copies are not looked for: they need CIFAR-10 (--data DIR or {DATA_VARIABLE})", file=sys.stderr)
    result = measure_repeatedly(
        args, lambda images: measure_quality(images, extractor, args.reference, args.data, device, training)
    )
    show_result("eval.quality", result, args.json)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
