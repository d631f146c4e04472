"""Repaint CIFAR-10's test images under boxes, strokes and half planes, and measure the results by the judge.

    python -m eval.inpaint --model checkpoints/student-1step-inpaint
    python -m eval.inpaint --model checkpoints/student-8step --plot repainted.png

A distance of few images is biased upward: compare it with `real` and the naive ways of the same command only.
"""

from eval.cli.output import add_json_argument, check_picture_output, write_picture
from eval.cli.show import show_result
from eval.extractors.judge import judge_extractor
from eval.extractors.statistics import check_image_count
from eval.measures.inpaint import COUNT, measure_inpainting, picture
from eval.protocol import default_device
from eval.samples.images import real_images
from eval.samples.pipelines import load_sampler
from eval.samples.settings import resolve_settings
from mobilediff.command import command_parser, run_command
from mobilediff.downstream.inpaint import MobileDiffusionInpaintPipeline

SHOWN = 8  # images of a picture


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("python -m eval.inpaint", __doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder of this project")
    parser.add_argument("--steps", type=int, help="inference steps (default: the checkpoint's own)")
    parser.add_argument("--n", type=int, default=COUNT, help="the first images of the test set")
    parser.add_argument("--seed", type=int, default=0, help="image i and its mask are drawn with seed + i")
    parser.add_argument("--batch-size", type=int, default=50, help="images repainted at once")
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    add_json_argument(parser)
    parser.add_argument("--plot", help="also draw the first images and what became of them, into this PNG file")
    args = parser.parse_args(argv)
    if args.plot:
        check_picture_output("--plot", args.plot)
    judge, device = judge_extractor(), default_device()
    check_image_count(args.n, judge)
    pipeline = load_sampler(args.model, device)
    settings = resolve_settings(pipeline, args.model, args.seed, num_inference_steps=args.steps)
    images = real_images(args.data, "test").first(args.n)
    inpainter = MobileDiffusionInpaintPipeline.from_pipe(pipeline)
    inpainter.set_progress_bar_config(disable=True)
    result = measure_inpainting(inpainter, settings, images, judge, args.batch_size, device)
    show_result("eval.inpaint", result, args.json)
    if args.plot:
        write_picture(args.plot, picture(inpainter, settings, images.first(SHOWN)))


if __name__ == "__main__":
    run_command(main)
