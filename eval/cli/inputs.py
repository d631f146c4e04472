"""Add and read the options of the measured images, a model's samples or files."""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

from eval.cli.sampling import add_model_arguments, add_sampling_arguments, sampler_from_arguments
from eval.samples.images import ImageSet, check_size, read_images, resized
from eval.samples.prompts import check_sample_count
from eval.samples.store import DEFAULT_SAMPLES, kept_samples

DEFAULT_COUNT = 10000
MIN_IMAGES = 2
OF_REAL_IMAGES = ("floor", "clip_score_real")  # figures that no draw of samples changes


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model, --pipeline or --images, the sampling options, and those of the folders and files."""
    source = parser.add_mutually_exclusive_group(required=True)
    add_model_arguments(source)
    source.add_argument("--images", help="a folder of images or an npz file")
    add_sampling_arguments(parser)
    parser.set_defaults(n=None)
    parser.add_argument("--resize", type=int, metavar="N", help="bring the images to N x N pixels first (Lanczos)")
    parser.add_argument("--repeats", type=int, default=1, help="sets of samples, each from seeds of its own")
    parser.add_argument("--samples", default=DEFAULT_SAMPLES, help="folder that keeps the samples drawn")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    parser.add_argument("--json", help="also write the result to this file")


def planned_count(args: argparse.Namespace) -> int:
    """Return the number of samples to draw of a model."""
    return DEFAULT_COUNT if args.n is None else args.n


def images_from_arguments(args: argparse.Namespace, labelled: bool = False) -> ImageSet:
    """Read or draw the images of the options; without --n all images, or `DEFAULT_COUNT` samples.

    Args:
        args: of the command line.
        labelled: refuse a model without prompts, and so without labels, before anything is drawn.

    Raises:
        ValueError: fewer than 2 images, a model without labels where they are needed, or as in `read_images`,
            `sampler_from_arguments`, `generate` and `resized`.
    """
    if args.resize is not None:
        check_size(args.resize)  # before samples are drawn for nothing
    if args.images:
        images = read_images(args.images)
        images = images if args.n is None else images.first(args.n)
        if len(images) < MIN_IMAGES:
            raise ValueError(f"{args.images}: {len(images)} image is too few, at least {MIN_IMAGES} are needed")
    else:
        n = planned_count(args)
        check_sample_count(n)  # before the model is loaded
        if n < MIN_IMAGES:
            raise ValueError(f"--n {n} is too few, at least {MIN_IMAGES} samples are needed")
        pipeline, settings = sampler_from_arguments(args)
        if labelled and settings.prompts is None:
            raise ValueError(f"{settings.model} takes no prompts, so its samples have neither prompts nor labels")
        images = kept_samples(pipeline, settings, n, args.batch_size, args.samples)
    return images if args.resize is None else resized(images, args.resize)


def measure_repeatedly(args: argparse.Namespace, measure: Callable[[ImageSet], dict], labelled: bool = False) -> dict:
    """Measure the images of the options and, with --repeats, further sets of samples.

    The sets follow each other: n samples from --seed on, then n from --seed + n on. Only the draw of the samples
    differs between them, so their spread is the quantity that an interval of one set estimates.

    Args:
        args: of the command line, with the options of `add_input_arguments`.
        measure: of one set of images.
        labelled: as in `images_from_arguments`.

    Returns:
        The result of `measure` for the first set; with several sets also `repeats`: the first seed of each set,
        `seeds`, and of every figure of the samples that is a float its `values`, `mean` and `std` (n - 1).

    Raises:
        ValueError: fewer than one repeat, several of images that are there already, or as in `images_from_arguments`.
    """
    if args.repeats < 1:
        raise ValueError(f"--repeats is {args.repeats}; accepted is 1 or more")
    if args.repeats > 1 and args.images:
        raise ValueError(f"--repeats is {args.repeats}, but {args.images} holds one set of images: accepted is 1")
    if args.repeats == 1:
        return measure(images_from_arguments(args, labelled))
    seeds = [args.seed + turn * planned_count(args) for turn in range(args.repeats)]
    results = [
        measure(images_from_arguments(argparse.Namespace(**vars(args) | {"seed": seed}), labelled)) for seed in seeds
    ]
    repeats: dict[str, Any] = {"seeds": seeds}
    for key in (key for key, value in results[0].items() if isinstance(value, float) and key not in OF_REAL_IMAGES):
        values = [result[key] for result in results]
        repeats[key] = {"values": values, "mean": statistics.mean(values), "std": statistics.stdev(values)}
    return results[0] | {"repeats": repeats}
