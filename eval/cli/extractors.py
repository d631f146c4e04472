"""Add and read the options of extractor, CLIP and reference images."""

import argparse

import torch

from eval.extractors.base import Extractor
from eval.extractors.choose import EXTRACTORS, choose_extractor
from eval.extractors.clip import ClipModel, bundled_clip, open_clip_model
from eval.extractors.judge import JUDGE, judge_extractor, say_judge_is_used
from eval.extractors.open_clip import EXAMPLE
from eval.extractors.statistics import reference_file
from mobilediff.data import SPLITS, data_source


def add_extractor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `choose_extractor`."""
    parser.add_argument("--extractor", choices=EXTRACTORS, default="auto", help="auto: Inception where it can be had")
    parser.add_argument("--extractor-weights", help="a file (inception, clip) or a folder (dinov2) of its weights")
    parser.add_argument("--clip-model", help=f"of --extractor clip: architecture:tag of open_clip, as {EXAMPLE}")


def extractor_from_arguments(args: argparse.Namespace) -> Extractor:
    """Choose the extractor of the options; "auto" without statistics of CIFAR-10 or data for them is the judge."""
    extractor = choose_extractor(args.extractor, args.extractor_weights, args.clip_model)
    if args.extractor != "auto" or args.extractor_weights or extractor.name == JUDGE:
        return extractor
    if data_source(args.data):
        return extractor
    if args.reference not in SPLITS or all(reference_file(extractor, split).exists() for split in SPLITS):
        return extractor
    say_judge_is_used("Inception's reference statistics need CIFAR-10 (--data DIR)")
    return judge_extractor()


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the CLIP."""
    parser.add_argument("--clip-model", help="an open_clip architecture:tag (default: the bundled CLIP)")
    parser.add_argument("--clip-weights", help="that model's file, or another folder of the bundled CLIP's parts")


def clip_from_arguments(args: argparse.Namespace, device: torch.device | str) -> ClipModel:
    """Load the CLIP of --clip-model and --clip-weights; errors as in `open_clip_model` and `bundled_clip`."""
    if args.clip_model:
        return open_clip_model(args.clip_model, args.clip_weights, device)
    return bundled_clip(args.clip_weights, device)


def add_reference_argument(parser: argparse.ArgumentParser) -> None:
    """Add --reference, an argument of `reference_statistics`."""
    parser.add_argument(
        "--reference",
        default="train",
        help="train or test of CIFAR-10, a folder of images, an npz file, or statistics made by eval.reference",
    )
