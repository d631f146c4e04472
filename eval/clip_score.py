"""CLIP score: 100 x cosine of image and prompt, beside the score of real images under the same template.

    python -m eval.clip_score --model checkpoints/student-8step --n 2000
    python -m eval.clip_score --images outputs/one-step --clip-model ViT-B-32:laion2b_s34b_b79k

The cosine is raw: neither rescaled nor cut at zero. Without --clip-model the bundled CLIP is used, and named.
"""

import argparse

from accelerate import PartialState

from eval.cli.extractors import add_clip_arguments, clip_from_arguments
from eval.cli.inputs import add_input_arguments, measure_repeatedly
from eval.cli.show import show_result
from eval.measures.clip_score import measure_clip_score, shipped_real_score
from mobilediff.command import run_command
from mobilediff.data import data_source


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.clip_score", description=__doc__.splitlines()[0])
    add_input_arguments(parser)
    add_clip_arguments(parser)
    args = parser.parse_args(argv)
    device = PartialState().device
    clip = clip_from_arguments(args, device)
    if not data_source(args.data):
        shipped_real_score(clip)  # before samples are drawn for nothing
    result = measure_repeatedly(
        args, lambda images: measure_clip_score(images, clip, args.data, device), labelled=True
    )
    show_result("eval.clip_score", result, args.json)


if __name__ == "__main__":
    run_command(main)
