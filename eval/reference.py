"""Statistics of an extractor's features over reference images, kept with the hashes of what made them.

    python -m eval.reference --data DIR        # the judge's, the bundled CLIP's score of real images, and their nouns
    python -m eval.reference --images DIR --extractor dinov2 --output outputs/mine.safetensors

The first ship as eval/weights/reference/{train,test}.safetensors, clip_score.json and
noun_counts.json. A file of statistics holds mean
and covariance, and the features of the first images in float16.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from eval.clip_score import SHIPPED_REAL_SCORE, bundled_clip, score_real_images
from eval.extractors import JUDGE, Extractor, add_extractor_arguments, choose_extractor, extract_features
from eval.gaussian import Statistics, feature_statistics
from eval.images import ImageSet, read_images, real_images, resized
from eval.noun_prompts import SHIPPED_NOUN_COUNTS, write_noun_counts
from eval.protocol import write_json
from eval.sampling import DEFAULT_TEMPLATE
from mobilediff.data import DATA_VARIABLE, SPLITS
from mobilediff.files import atomic_path

SHIPPED = Path(__file__).parent / "weights" / "reference"
CACHE = Path("outputs/reference")
STATISTICS_SUFFIX = ".safetensors"
MAX_FEATURES = 10000


def compute_reference(extractor: Extractor, images: ImageSet, device: torch.device | str = "cpu") -> Statistics:
    """Statistics of an image set, the features of its first `MAX_FEATURES` images among them.

    Raises:
        ValueError: as in `extract_features` and `feature_statistics`, or a feature that float16 cannot hold.
    """
    features = extract_features(extractor, images.images, (extractor.layer,), device=device)[extractor.layer]
    metadata = {"images_sha256": images.protocol["images_sha256"], "n": str(len(images))} | extractor.protocol()
    kept = features[:MAX_FEATURES].half()
    if not torch.isfinite(kept).all():
        raise ValueError(f"{extractor.name} gave a feature beyond the range of float16, {features.abs().max():.3g}")
    return replace(feature_statistics(features, **metadata), features=kept.numpy())


def save_reference(statistics: Statistics, file: str | Path) -> None:
    """Write statistics as safetensors."""
    tensors = {"mu": statistics.mu, "sigma": statistics.sigma}
    if statistics.features is not None:
        tensors["features"] = statistics.features
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata=statistics.metadata)


def load_reference(file: str | Path, extractor: Extractor) -> Statistics:
    """Read statistics that `extractor` made.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is corrupt or no file of statistics, or was made with another extractor or other weights.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} does not exist: python -m eval.reference makes it")
    try:
        with safe_open(file, framework="numpy") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}
    except SafetensorError as error:
        raise ValueError(f"{file} is corrupt or truncated: {error}") from error
    if not {"mu", "sigma"} <= set(tensors) or not {"n", "images_sha256"} <= set(metadata):
        raise ValueError(f"{file} holds no statistics of python -m eval.reference")
    for key, value in extractor.protocol().items():
        if metadata.get(key) != value:
            raise ValueError(
                f"{file} is stale, or of another extractor ({key} is {metadata.get(key)!r} there, {value!r} here): "
                "name its extractor, or make it again with python -m eval.reference"
            )
    return Statistics(tensors["mu"], tensors["sigma"], int(metadata["n"]), metadata, tensors.get("features"))


def reference_name(reference: str) -> str:
    """What a result calls a reference; which images it is says their hash."""
    return f"CIFAR-10 {reference}" if reference in SPLITS else Path(reference).name


def reference_protocol(reference: str, statistics: Statistics) -> dict:
    """The reference's part of a protocol."""
    sha256 = statistics.metadata["images_sha256"]
    return {"reference": reference_name(reference), "reference_n": statistics.n, "reference_sha256": sha256}


def add_reference_argument(parser: argparse.ArgumentParser) -> None:
    """--reference, as `reference_statistics` takes it."""
    parser.add_argument(
        "--reference",
        default="train",
        help="train or test of CIFAR-10, a folder of images, an npz file, or statistics made by eval.reference",
    )


def reference_images(reference: str, data: str | Path | None = None) -> ImageSet:
    """The images of a reference: a split of CIFAR-10, a folder of images or an npz file.

    Raises:
        FileNotFoundError, ValueError: neither; or as in `load_cifar10` and `read_images`.
    """
    if reference in SPLITS:
        return real_images(data, reference)
    if not Path(reference).exists():
        raise FileNotFoundError(
            f"there is no {reference}: accepted are {', '.join(SPLITS)}, a folder of images, an npz file, or as a "
            f"reference a file of statistics ({STATISTICS_SUFFIX})"
        )
    return read_images(reference)


def reference_file(extractor: Extractor, reference: str) -> Path:
    """Where the statistics of an extractor are: shipped for the judge, a cache named by the hash for the others.

    Args:
        extractor: from `choose_extractor`.
        reference: a split of CIFAR-10, or the hash of images.
    """
    if extractor.name == JUDGE and reference in SPLITS:
        return SHIPPED / f"{reference}{STATISTICS_SUFFIX}"
    options = "".join(f"-{value}" for value in extractor.options.values()).replace(":", "-")
    return CACHE / f"{extractor.name}{options}-{extractor.sha256[:12]}-{reference[:12]}{STATISTICS_SUFFIX}"


def reference_statistics(
    extractor: Extractor, reference: str, data: str | Path | None = None, device: torch.device | str = "cpu"
) -> Statistics:
    """Statistics of a reference: shipped, cached, or computed and cached.

    Args:
        extractor: from `choose_extractor`.
        reference: "train" or "test" of CIFAR-10, a folder of images, an npz file, or a file of statistics.
        data: CIFAR-10; not needed where statistics of it are there. Where it is given, or the variable
            MOBILEDIFF_DATA and the statistics are not the shipped ones, they must be of its images.
        device: what the extractor runs on.

    Raises:
        FileNotFoundError, ValueError: as in `load_reference`, `reference_images` and `compute_reference`; or the
            statistics there are of other images.
    """
    if Path(reference).suffix == STATISTICS_SUFFIX:
        return load_reference(reference, extractor)
    shipped = reference in SPLITS and reference_file(extractor, reference).parent == SHIPPED
    data = data or (None if shipped else os.environ.get(DATA_VARIABLE))
    images = None if reference in SPLITS and not data else reference_images(reference, data)
    sha256 = None if images is None else images.protocol["images_sha256"]
    file = reference_file(extractor, reference if reference in SPLITS else sha256)
    if file.parent != SHIPPED and not file.exists():
        source = reference_images(reference, data) if images is None else images
        save_reference(compute_reference(extractor, source, device), file)
    statistics = load_reference(file, extractor)
    if images is not None and statistics.metadata["images_sha256"] != sha256:
        raise ValueError(
            f"{file} is of other images than {data or reference}, {reference_name(reference)}; take the images that "
            "it was made from, or move the file away to have it made again"
        )
    return statistics


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.reference", description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="train, test, a folder of images or an npz file (default: what is shipped)")
    parser.add_argument("--output", help=f"of --images: the file of statistics, ends in {STATISTICS_SUFFIX}")
    add_extractor_arguments(parser)
    parser.set_defaults(extractor="judge")
    parser.add_argument("--resize", type=int, metavar="N", help="bring the images to N x N pixels first (Lanczos)")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    args = parser.parse_args(argv)
    if bool(args.images) != bool(args.output) or not (args.images or args.extractor == "judge"):
        raise ValueError("--images and --output go together, and --extractor with them")
    extractor = choose_extractor(args.extractor, args.extractor_weights, args.clip_model)
    if not args.images:
        for split in SPLITS:
            _write_statistics(extractor, real_images(args.data, split), SHIPPED / f"{split}{STATISTICS_SUFFIX}")
        write_real_clip_score(args.data)
        write_noun_counts(real_images(args.data, "test"), SHIPPED_NOUN_COUNTS)
        print(f"{SHIPPED_NOUN_COUNTS}: the nouns of the test set, counted")
        return
    if Path(args.output).suffix != STATISTICS_SUFFIX:
        raise ValueError(f"--output is {args.output}; accepted is a file that ends in {STATISTICS_SUFFIX}")
    images = reference_images(args.images, args.data)
    _write_statistics(extractor, images if args.resize is None else resized(images, args.resize), args.output)


def _write_statistics(extractor: Extractor, images: ImageSet, file: str | Path) -> None:
    statistics = compute_reference(extractor, images, PartialState().device)
    save_reference(statistics, file)
    count, dim = statistics.features.shape
    print(f"{file}: {statistics.n} images, {dim} features, those of the first {count} images kept")


def write_real_clip_score(data: str | Path | None) -> None:
    """Write the score of real images under the bundled CLIP and the pipeline's own template of prompts."""
    score = score_real_images(bundled_clip(), DEFAULT_TEMPLATE, data)
    write_json(SHIPPED_REAL_SCORE, score)
    print(f"{SHIPPED_REAL_SCORE}: {score['clip_score_real']:.2f} over {score['real_n']} images")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
