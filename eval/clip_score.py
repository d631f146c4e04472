"""Measure the CLIP score, 100 x cosine of image and prompt, beside real images'.

    python -m eval.clip_score --model checkpoints/student-8step --n 2000
    python -m eval.clip_score --images outputs/one-step --clip-model ViT-B-32:laion2b_s34b_b79k

The cosine is raw: neither rescaled nor cut at zero. Without --clip-model the bundled CLIP is used, and named.
"""

from eval.cli.extractors import add_clip_arguments, clip_from_arguments
from eval.cli.inputs import add_input_arguments, measure_repeatedly
from eval.cli.parser import command_parser
from eval.cli.show import show_result
from eval.measures.clip_score import measure_clip_score, shipped_real_score
from eval.protocol import default_device
from mobilediff.command import run_command
from mobilediff.data import data_source


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("eval.clip_score", __doc__)
    add_input_arguments(parser)
    add_clip_arguments(parser)
    args = parser.parse_args(argv)
    device = default_device()
    clip = clip_from_arguments(args, device)
    if not data_source(args.data):
        shipped_real_score(clip)  # before samples are drawn for nothing
    result = measure_repeatedly(
        args, lambda images: measure_clip_score(images, clip, args.data, device), labelled=True
    )
    show_result("eval.clip_score", result, args.json)


if __name__ == "__main__":
    run_command(main)
