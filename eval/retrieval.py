"""Measure retrieval by a CLIP: captions of test images, and nouns of unseen phrasings.

    python -m eval.retrieval --data DIR
    python -m eval.retrieval --data DIR --clip-model ViT-B-32:laion2b_s34b_b79k

Each image is compared with the captions of all nouns, and with those of the ten classes; each phrasing with the
captions of all nouns.
"""

from eval.cli.extractors import add_clip_arguments, clip_from_arguments
from eval.cli.parser import command_parser
from eval.cli.show import show_result
from eval.measures.retrieval import measure_retrieval
from eval.protocol import default_device
from eval.samples.images import real_images
from mobilediff.command import run_command


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("eval.retrieval", __doc__)
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    add_clip_arguments(parser)
    parser.add_argument("--json", help="also write the result to this file")
    args = parser.parse_args(argv)
    device = default_device()
    clip = clip_from_arguments(args, device)
    show_result("eval.retrieval", measure_retrieval(clip, real_images(args.data, "test"), device=device), args.json)


if __name__ == "__main__":
    run_command(main)
