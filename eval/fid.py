"""Frechet distance of samples or images to CIFAR-10, beside its floor, or to other images, by torch-fidelity.

    python -m eval.fid --model checkpoints/student-1step
    python -m eval.fid --images outputs/one-step --extractor judge --reference test
    python -m eval.fid --pipeline OWNER/NAME --call '{"num_inference_steps": 100}' --extractor dinov2
    python -m eval.fid --images DIR --extractor inception --extractor-weights FILE --reference OTHER_DIR

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

from eval.accuracy import accuracies, accuracy_intervals
from eval.bootstrap import check_resamples, frechet_interval, interval_at_n
from eval.extractors import (
    IMAGE_SIZE,
    JUDGE,
    Extractor,
    add_extractor_arguments,
    choose_extractor,
    extract_features,
    judge_extractor,
    say_judge_is_used,
)
from eval.gaussian import Statistics, check_count, feature_statistics
from eval.images import ImageSet
from eval.inputs import add_input_arguments, measure_repeatedly, planned_count
from eval.protocol import measured_with
from eval.reference import (
    add_reference_argument,
    reference_file,
    reference_name,
    reference_protocol,
    reference_statistics,
)
from eval.show import show_result
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
    reference: str = "train",
    data: str | Path | None = None,
    device: torch.device | str = "cpu",
    resamples: int = 100,
) -> dict:
    """Frechet distance, its floor where the reference is CIFAR-10's and, with known labels, the judge's accuracies.

    Args:
        images: what is measured.
        extractor: from `choose_extractor`.
        reference: as in `reference_statistics`.
        data: CIFAR-10, for an extractor without statistics on disk.
        device: what the extractor runs on.
        resamples: of the bootstrap intervals, 0 for none.

    Returns:
        `frechet_inception_distance`, or `frechet_distance_` and the extractor; `floor`, `n`, the accuracies,
        `intervals` of the distance at this n and of the accuracies, `protocol`, `samples`.

    Raises:
        ValueError: too few images, images of the wrong size, or stale statistics.
    """
    statistics = reference_statistics(extractor, reference, data, device)
    check_count(len(images), len(statistics.mu))
    labelled = images.class_labels is not None and images.images.shape[2:] == (IMAGE_SIZE, IMAGE_SIZE)
    logits = ("class_logits", "noun_logits") if labelled else ()
    if extractor.name == JUDGE:
        features = extract_features(extractor, images.images, (extractor.layer, *logits), device=device)
    else:
        features = extract_features(extractor, images.images, (extractor.layer,), device=device)
        if labelled:
            features |= extract_features(judge_extractor(), images.images, logits, device=device)
    result = {extractor.result_key: frechet_distance(feature_statistics(features[extractor.layer]), statistics)}
    protocol = extractor.protocol() | reference_protocol(reference, statistics)
    protocol["image_size"] = "{1}x{0}".format(*images.images.shape[2:])
    if reference in SPLITS:
        result["floor"] = frechet_distance(*(reference_statistics(extractor, name, data, device) for name in SPLITS))
        protocol["floor_is"] = "CIFAR-10 test against train"
    result["n"] = len(images)
    if labelled:
        result |= accuracies(features, images)
    if resamples:
        interval = frechet_interval(features[extractor.layer], statistics, resamples)
        result["intervals"] = {extractor.result_key: interval_at_n(interval)}
        if labelled:
            result["intervals"] |= accuracy_intervals(features, images)
    return result | {"protocol": protocol | measured_with(device), "samples": images.protocol}


def extractor_from_arguments(args: argparse.Namespace) -> Extractor:
    """The extractor that the options name; "auto" without statistics of CIFAR-10 or the data for them is the judge."""
    extractor = choose_extractor(args.extractor, args.extractor_weights, args.clip_model)
    if args.extractor != "auto" or args.extractor_weights or extractor.name == JUDGE:
        return extractor
    if args.data or os.environ.get(DATA_VARIABLE):
        return extractor
    if args.reference not in SPLITS or all(reference_file(extractor, split).exists() for split in SPLITS):
        return extractor
    say_judge_is_used("Inception's reference statistics need CIFAR-10 (--data DIR)")
    return judge_extractor()


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.fid", description=__doc__.splitlines()[0])
    add_input_arguments(parser)
    add_extractor_arguments(parser)
    add_reference_argument(parser)
    parser.add_argument("--resamples", type=int, default=100, help="of the bootstrap intervals, 0 for none")
    args = parser.parse_args(argv)
    if args.resamples:
        check_resamples(args.resamples)
    extractor, device = extractor_from_arguments(args), PartialState().device
    reference = reference_statistics(extractor, args.reference, args.data, device)
    if not args.images:  # before samples are drawn for nothing
        check_count(planned_count(args), len(reference.mu))
    result = measure_repeatedly(
        args, lambda images: measure_distance(images, extractor, args.reference, args.data, device, args.resamples)
    )
    show_result("eval.fid", result, args.json)
    to = reference_name(args.reference)
    print(f"{extractor.label(result['n'])} to {to}: {result[extractor.result_key]:.4f}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
