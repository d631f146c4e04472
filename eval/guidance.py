"""Measure class accuracy and Frechet distance against guidance, solver and steps, by the judge.

    python -m eval.guidance --model checkpoints/teacher --scales 1 2 3 5 7 --n 500 --plot docs/guidance.png
    python -m eval.guidance --model checkpoints/teacher --scales 2 --steps 25 50 --schedulers DDIMScheduler \\
        UniPCMultistepScheduler --intervals 0,1 0.2,0.8

Every combination is a point of the sweep, and all points draw from the same seeds. A distance of few samples is biased
upward: compare it along one sweep only.
"""

import argparse

from eval.cli.parser import command_parser
from eval.cli.show import keep_result
from eval.extractors.judge import judge_extractor
from eval.measures.guidance import COUNT, check_sweep, measure_guidance, sweep_points
from eval.protocol import default_device
from eval.reporting.plots import draw_guidance
from eval.samples.pipelines import load_sampler
from eval.samples.settings import DTYPES, resolve_settings
from eval.samples.store import DEFAULT_SAMPLES
from mobilediff.command import run_command
from mobilediff.files import check_png

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def parse_interval(text: str) -> list[float]:
    """Parse two numbers such as "0.2,0.8"."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval; accepted is LOW,HIGH such as 0.2,0.8") from None
    return [low, high]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = command_parser("eval.guidance", __doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder of this project")
    parser.add_argument("--scales", nargs="+", type=float, default=list(SCALES), help="of guidance, from 1")
    parser.add_argument(
        "--intervals",
        nargs="+",
        type=parse_interval,
        metavar="LOW,HIGH",
        help="where guidance applies (default: the checkpoint's own)",
    )
    parser.add_argument("--steps", nargs="+", type=int, help="numbers of steps (default: the checkpoint's own)")
    parser.add_argument("--schedulers", nargs="+", help="diffusers' classes (default: the checkpoint's own)")
    parser.add_argument("--n", type=int, default=COUNT, help="samples at each point")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="bf16 samples under autocast")
    parser.add_argument("--compile", action="store_true", help="sample under torch.compile; pays for many steps")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")
    parser.add_argument("--samples", default=DEFAULT_SAMPLES, help="folder that keeps the samples drawn")
    parser.add_argument("--json", help="also write the result to this file")
    parser.add_argument("--plot", help="also draw it against the scales, into this PNG file")
    args = parser.parse_args(argv)
    if args.plot:
        check_png("--plot", args.plot)
    judge, device = judge_extractor(), default_device()
    check_sweep(args.scales, args.n, judge)
    pipeline = load_sampler(args.model, device)
    settings = resolve_settings(pipeline, args.model, dtype=args.dtype, compiled=args.compile)
    points = sweep_points(pipeline, settings, args.scales, args.intervals, args.steps, args.schedulers)
    sweep = measure_guidance(pipeline, points, judge, args.n, args.batch_size, args.samples, device)
    result = keep_result("eval.guidance", sweep, args.json)
    if args.plot:
        draw_guidance(result, args.plot)


if __name__ == "__main__":
    run_command(main)
