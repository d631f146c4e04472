"""What a metric measures, from its command line: samples of a checkpoint (drawn once and kept) or images on disk."""

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from accelerate import PartialState

from eval.generate import add_sampling_arguments, generate, settings_from_arguments
from eval.images import ImageSet, read_images
from eval.protocol import read_json, write_json
from eval.sampling import SamplingSettings, load_sampler, plan_samples

DEFAULT_SAMPLES = Path("outputs/samples")
DEFAULT_COUNT = 10000


def kept_samples(pipeline, settings: SamplingSettings, n: int, batch_size: int, folder: str | Path) -> ImageSet:
    """The first `n` samples under `settings`, drawn into `folder` unless they are there.

    The file is named after the settings, so that samples of another protocol are never taken for these.
    """
    key = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode()).hexdigest()[:12]
    file = Path(folder) / f"{settings.model}-{key}.npz"
    manifest = file.with_suffix(".json")
    kept = read_json(manifest) if file.exists() and manifest.exists() else {"complete": False}
    if not kept["complete"] or kept["n"] < n:
        generate(pipeline, settings, file, max(n, kept.get("n", 0)), batch_size)
    return read_images(file).first(n)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """--model or --images, the sampling options, where samples are kept, and where the result is written."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="a checkpoint folder to draw samples from")
    source.add_argument("--images", help="a folder of images or an npz file")
    add_sampling_arguments(parser)
    parser.set_defaults(n=None)
    parser.add_argument("--samples", default=DEFAULT_SAMPLES, help="folder that keeps the samples drawn")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    parser.add_argument("--json", help="also write the result to this file")


def planned_count(args: argparse.Namespace) -> int:
    """How many samples of a checkpoint are asked for."""
    return DEFAULT_COUNT if args.n is None else args.n


def images_from_arguments(args: argparse.Namespace) -> ImageSet:
    """The images that the options of `add_input_arguments` name; without --n all images, `DEFAULT_COUNT` samples."""
    if args.images:
        images = read_images(args.images)
        return images if args.n is None else images.first(args.n)
    n = planned_count(args)
    plan_samples(n, args.prompts, "{}")  # a bad n is refused before the checkpoint is loaded
    pipeline = load_sampler(args.model, PartialState().device)
    return kept_samples(pipeline, settings_from_arguments(pipeline, args), n, args.batch_size, args.samples)


def show_result(result: dict, path: str | None) -> None:
    """Print a result as JSON, and write it to `path` where one is given."""
    print(json.dumps(result, indent=2))
    if path:
        write_json(path, result)
