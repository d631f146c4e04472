"""Frechet distance of samples or images to CIFAR-10, beside its floor, by torch-fidelity.

    python -m eval.fid --model checkpoints/student-1step
    python -m eval.fid --images outputs/one-step --extractor judge --reference test

It is called FID only when the extractor is Inception. The floor is the distance of CIFAR-10's test set to its training
set under the same extractor.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from eval.accuracy import accuracies
from eval.extractors import (
    EXTRACTORS,
    JUDGE,
    Extractor,
    choose_extractor,
    extract_features,
    judge_extractor,
    say_judge_is_used,
)
from eval.images import ImageSet
from eval.inputs import add_input_arguments, images_from_arguments, planned_count, show_result
from eval.protocol import measured_with
from eval.reference import Statistics, check_count, feature_statistics, reference_file, reference_statistics
from mobilediff.data import DATA_VARIABLE, SPLITS


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) in float64, by torch-fidelity's own function.

    Source: Heusel et al., arXiv 1706.08500, equation 6.

    Raises:
        ValueError: the two have different numbers of features.
    """
    if first.mu.shape != second.mu.shape:
        raise ValueError(f"{len(first.mu)} features against {len(second.mu)}: not of the same extractor")
    fitted = [{"mu": statistics.mu, "sigma": statistics.sigma} for statistics in (first, second)]
    return fid_statistics_to_metric(*fitted, verbose=False)[KEY_METRIC_FID]


def measure_distance(
    images: ImageSet,
    extractor: Extractor,
    split: str = "train",
    data: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> dict:
    """Frechet distance, its floor and, with known labels, the judge's accuracies.

    Args:
        images: what is measured.
        extractor: from `choose_extractor`.
        split: the reference, "train" or "test".
        data: CIFAR-10, for an extractor without statistics on disk.
        device: what the extractor runs on.

    Returns:
        `frechet_distance_judge` or `frechet_inception_distance`, `floor`, `n`, the accuracies, `protocol`, `samples`.

    Raises:
        ValueError: too few images, images of the wrong size, or stale statistics.
    """
    reference = reference_statistics(extractor, split, data, device)
    floor = frechet_distance(*(reference_statistics(extractor, name, data, device) for name in SPLITS))
    check_count(len(images), len(reference.mu))
    logits = ("class_logits", "noun_logits") if images.class_labels is not None else ()
    if extractor.name == JUDGE:
        features = extract_features(extractor, images.images, (extractor.layer, *logits), device=device)
    else:
        features = extract_features(extractor, images.images, (extractor.layer,), device=device)
        if logits:
            features |= extract_features(judge_extractor(), images.images, logits, device=device)
    result = {
        extractor.result_key: frechet_distance(feature_statistics(features[extractor.layer]), reference),
        "floor": floor,
        "n": len(images),
    }
    if logits:
        result |= accuracies(features, images)
    protocol = extractor.protocol() | {"reference": f"CIFAR-10 {split}", "reference_n": reference.n}
    protocol |= {"reference_sha256": reference.metadata["images_sha256"], "floor_is": "CIFAR-10 test against train"}
    return result | {"protocol": protocol | measured_with(device), "samples": images.protocol}


def extractor_from_arguments(args: argparse.Namespace) -> Extractor:
    """The extractor that --extractor and --inception-weights name; "auto" without reference data is the judge."""
    extractor = choose_extractor(args.extractor, args.inception_weights)
    if args.extractor != "auto" or extractor.name == JUDGE or args.data or os.environ.get(DATA_VARIABLE):
        return extractor
    if all(reference_file(extractor, split).exists() for split in SPLITS):
        return extractor
    say_judge_is_used("Inception's reference statistics need CIFAR-10 (--data DIR)")
    return judge_extractor()


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.fid", description=__doc__.splitlines()[0])
    add_input_arguments(parser)
    parser.add_argument("--extractor", choices=EXTRACTORS, default="auto", help="auto: Inception where it can be had")
    parser.add_argument("--inception-weights", help="a file of torch-fidelity's Inception weights")
    parser.add_argument("--reference", choices=SPLITS, default="train", help="the split of CIFAR-10 compared with")
    args = parser.parse_args(argv)
    extractor, device = extractor_from_arguments(args), PartialState().device
    reference = reference_statistics(extractor, args.reference, args.data, device)
    if args.model:  # before samples are drawn for nothing
        check_count(planned_count(args), len(reference.mu))
    images = images_from_arguments(args)
    result = measure_distance(images, extractor, args.reference, args.data, device)
    show_result(result, args.json)
    print(f"{extractor.label(len(images))} to CIFAR-10 {args.reference}: {result[extractor.result_key]:.4f}")
    print(f"floor (CIFAR-10 test against train): {result['floor']:.4f}")
    if "class_accuracy" in result:
        print(f"class accuracy under {JUDGE}: {result['class_accuracy']:.2%}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
