"""Class accuracy and Frechet distance against guidance, solver and steps, under the bundled extractor.

    python -m eval.guidance --model checkpoints/teacher --scales 1 2 3 5 7 --n 500 --plot docs/guidance.png
    python -m eval.guidance --model checkpoints/teacher --scales 2 --steps 25 50 --schedulers DDIMScheduler \\
        UniPCMultistepScheduler --intervals 0,1 0.2,0.8

Every combination is a point of the sweep, and all points draw from the same seeds. A distance of few samples is biased
upward: compare it along one sweep only.
"""

import argparse
import math
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from accelerate import PartialState

from eval.extractors import Extractor, judge_extractor
from eval.fid import measure_distance
from eval.gaussian import check_count
from eval.inputs import DEFAULT_SAMPLES, kept_samples
from eval.plots import draw_guidance
from eval.reference import reference_statistics
from eval.sampling import DTYPES, CheckpointSettings, load_sampler, resolve_settings
from eval.show import keep_result
from mobilediff.files import check_png
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.schedulers.choice import choose_scheduler

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
COUNT = 500
VARIED = ("scheduler", "num_inference_steps", "guidance_interval", "guidance_scale")


def check_sweep(scales: list[float], n: int, extractor: Extractor) -> None:
    """Refuse a sweep, before any work.

    Raises:
        ValueError: no scales, one below 1 or not finite, one twice, or too few samples.
    """
    for scale in scales:
        if not (math.isfinite(scale) and scale >= 1):
            raise ValueError(f"a scale is {scale}; accepted are finite numbers from 1, which is no guidance")
    if not scales or len(set(scales)) < len(scales):
        raise ValueError(f"scales are {scales}; accepted is one or more, each once")
    check_count(n, len(reference_statistics(extractor, "train").mu))


def sweep_points(
    pipeline: MobileDiffusionPipeline,
    settings: CheckpointSettings,
    scales: list[float],
    intervals: list[list[float]] | None = None,
    steps: list[int] | None = None,
    schedulers: list[str] | None = None,
) -> list[CheckpointSettings]:
    """The settings of every combination; what is None stays as it is in `settings`.

    Without guidance (scale 1) there is one point for all intervals.

    Args:
        pipeline: from `load_sampler`.
        settings: from `resolve_settings`.
        scales: of guidance.
        intervals: where guidance applies.
        steps: numbers of inference steps.
        schedulers: names of classes; see `choose_scheduler`.

    Raises:
        ValueError: guidance is distilled into the checkpoint, or it cannot be sampled in one of these ways.
    """
    if pipeline.config.guidance_distilled:
        raise ValueError(f"{settings.model}: guidance is distilled into this checkpoint, there is no scale to choose")
    points = []
    for name in schedulers or [settings.scheduler]:
        choose_scheduler(pipeline, name)
        ways = product(steps or [settings.num_inference_steps], intervals or [settings.guidance_interval], scales)
        for count, interval, scale in ways:
            interval = interval if scale > 1 else [0.0, 1.0]
            varied = dict(zip(VARIED, (name, count, interval, scale), strict=True))
            point = replace(settings, **varied, nfe=pipeline.nfe(count, scale, interval))
            if point not in points:
                points.append(point)
    choose_scheduler(pipeline, settings.scheduler)
    return points


def measure_guidance(
    pipeline: MobileDiffusionPipeline,
    points: list[CheckpointSettings],
    extractor: Extractor,
    n: int = COUNT,
    batch_size: int = 100,
    samples: str | Path = DEFAULT_SAMPLES,
    device: torch.device | str = "cpu",
) -> dict:
    """Draw and measure `n` samples at each point.

    Args:
        pipeline: from `load_sampler`.
        points: from `sweep_points`.
        extractor: the judge.
        n: samples at each point.
        batch_size: samples drawn at once.
        samples: folder that keeps them.
        device: what the extractor runs on.

    Returns:
        `n`; `points`, for each what is `VARIED`, the class accuracy, the distance, their intervals and the protocol of
        its samples; `protocol`, of the measurement.
    """
    own, measured_points = type(pipeline.scheduler).__name__, []
    for point in points:
        choose_scheduler(pipeline, point.scheduler)
        measured = measure_distance(kept_samples(pipeline, point, n, batch_size, samples), extractor, device=device)
        keys = ("class_accuracy", extractor.result_key, "intervals", "samples")
        varied = {key: getattr(point, key) for key in VARIED}
        measured_points.append(varied | {key: measured[key] for key in keys})
        print(describe_point(measured_points[-1], extractor), flush=True)
    choose_scheduler(pipeline, own)
    return {"n": n, "points": measured_points, "protocol": measured["protocol"]}


def describe_point(point: dict, extractor: Extractor) -> str:
    """One line on a point of `measure_guidance`."""
    low, high = point["guidance_interval"]
    way = f"{point['scheduler']}, {point['num_inference_steps']} steps, guidance {point['guidance_scale']:g}"
    way += f" in {low:g} to {high:g}" if (low, high) != (0, 1) else ""
    accuracy, distance = point["class_accuracy"], point[extractor.result_key]
    return f"{way} ({point['samples']['nfe']} NFE): class accuracy {accuracy:.1%}, distance {distance:.2f}"


def parse_interval(text: str) -> list[float]:
    """ "0.2,0.8" as two numbers."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval; accepted is LOW,HIGH such as 0.2,0.8") from None
    return [low, high]


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.guidance", description=__doc__.splitlines()[0])
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
    judge, device = judge_extractor(), PartialState().device
    check_sweep(args.scales, args.n, judge)
    pipeline = load_sampler(args.model, device)
    settings = resolve_settings(pipeline, args.model, dtype=args.dtype, compiled=args.compile)
    points = sweep_points(pipeline, settings, args.scales, args.intervals, args.steps, args.schedulers)
    result = measure_guidance(pipeline, points, judge, args.n, args.batch_size, args.samples, device)
    keep_result("eval.guidance", result, args.json)
    if args.plot:
        draw_guidance(result, args.plot)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
