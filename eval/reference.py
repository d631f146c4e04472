"""Compute statistics of an extractor's features over reference images, and keep them on disk.

    python -m eval.reference --data DIR        # the judge's, the bundled CLIP's score of real images, and their nouns
    python -m eval.reference --data DIR --extractor efficientnet
    python -m eval.reference --images DIR --extractor dinov2 --output outputs/mine.safetensors

The first two commands' results ship in eval/weights/reference: {train,test}.safetensors, clip_score.json,
noun_counts.json of the test set and training_noun_counts.json; efficientnet-{train,test}.safetensors. A file of
statistics holds mean and covariance, the features of the first images in float16, and the hashes of extractor and
images; EfficientNet's shipped covariance is float32, of fewer images' features.
"""

from pathlib import Path

from eval.cli.extractors import add_extractor_arguments
from eval.extractors.base import Extractor
from eval.extractors.choose import choose_extractor
from eval.extractors.clip import bundled_clip
from eval.extractors.efficientnet import EFFICIENTNET, KEPT_FEATURES
from eval.extractors.judge import JUDGE
from eval.extractors.statistics import (
    STATISTICS_SUFFIX,
    check_reference_output,
    compact,
    compute_reference,
    reference_images,
    save_reference,
    shipped_file,
)
from eval.measures.clip_score import SHIPPED_REAL_SCORE, score_real_images
from eval.metrics.frechet import Statistics
from eval.protocol import default_device
from eval.samples.images import ImageSet, real_images, resized
from eval.samples.prompts import DEFAULT_TEMPLATE, SHIPPED_NOUN_COUNTS, SHIPPED_TRAINING_NOUN_COUNTS, write_noun_counts
from mobilediff.command import command_parser, run_command
from mobilediff.data import SPLITS
from mobilediff.files import write_json

SHIPPING = ("judge", "efficientnet")  # extractors whose statistics of CIFAR-10 ship


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m eval.reference", __doc__)
    parser.add_argument("--images", help="train, test, a folder of images or an npz file (default: the shipped files)")
    parser.add_argument("--output", help=f"of --images: the file of statistics, ends in {STATISTICS_SUFFIX}")
    add_extractor_arguments(parser)
    parser.set_defaults(extractor="judge")
    parser.add_argument("--resize", type=int, metavar="N", help="bring the images to N x N pixels first (Lanczos)")
    parser.add_argument("--n", type=int, help="the first N images of each set (default: all)")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    args = parser.parse_args(argv)
    if bool(args.images) != bool(args.output) or not (args.images or args.extractor in SHIPPING):
        raise ValueError(
            f"--images and --output go together, and --extractor with them where it is none of {', '.join(SHIPPING)}"
        )
    extractor = choose_extractor(args.extractor, args.extractor_weights, args.clip_model)
    if args.images:
        check_reference_output(args.output)
        images = _first(reference_images(args.images, args.data), args.n)
        images = images if args.resize is None else resized(images, args.resize)
        _write_statistics(compute_reference(extractor, images, default_device()), args.output)
        return
    write_shipped_statistics(extractor, args.data, args.n)
    if extractor.name == JUDGE:
        write_real_clip_score(args.data)
        for split, file in (("test", SHIPPED_NOUN_COUNTS), ("train", SHIPPED_TRAINING_NOUN_COUNTS)):
            write_noun_counts(real_images(args.data, split), file)
            print(f"{file}: the nouns of the {split} set, counted")


def _first(images: ImageSet, n: int | None) -> ImageSet:
    return images if n is None else images.first(min(n, len(images)))


def write_shipped_statistics(extractor: Extractor, data: str | Path | None, n: int | None = None) -> None:
    """Write an extractor's statistics of CIFAR-10, of the first `n` images of each split; EfficientNet's compact."""
    for split in SPLITS:
        statistics = compute_reference(extractor, _first(real_images(data, split), n), default_device())
        if extractor.name == EFFICIENTNET:
            statistics = compact(statistics, KEPT_FEATURES)
        _write_statistics(statistics, shipped_file(extractor, split))


def _write_statistics(statistics: Statistics, file: str | Path) -> None:
    save_reference(statistics, file)
    count, dim = statistics.kept_features().shape
    print(f"{file}: {statistics.n} images, {dim} features, those of the first {count} images kept")


def write_real_clip_score(data: str | Path | None) -> None:
    """Write the bundled CLIP's score of real images, with the pipeline's own template."""
    score = score_real_images(bundled_clip(), DEFAULT_TEMPLATE, data)
    write_json(SHIPPED_REAL_SCORE, score)
    print(f"{SHIPPED_REAL_SCORE}: {score['clip_score_real']:.2f} over {score['real_n']} images")


if __name__ == "__main__":
    run_command(main)
