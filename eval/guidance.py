"""Class accuracy and Frechet distance against the scale of classifier-free guidance, under the bundled extractor.

    python -m eval.guidance --model checkpoints/teacher --scales 1 2 3 5 7 --n 500

All scales draw from the same seeds. A distance of few samples is biased upward: compare it along one sweep only.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from eval.extractors import Extractor, judge_extractor
from eval.fid import measure_distance
from eval.gaussian import check_count
from eval.inputs import DEFAULT_SAMPLES, kept_samples
from eval.reference import reference_statistics
from eval.sampling import DTYPES, CheckpointSettings, load_sampler, resolve_settings
from eval.show import keep_result
from mobilediff.pipeline import MobileDiffusionPipeline

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
COUNT = 500


def takes_guidance(pipeline: MobileDiffusionPipeline) -> bool:
    """Whether the scale of guidance can be chosen, or is distilled into the network."""
    return not pipeline.config.guidance_distilled


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


def measure_guidance(
    pipeline: MobileDiffusionPipeline,
    settings: CheckpointSettings,
    extractor: Extractor,
    scales: list[float] = SCALES,
    n: int = COUNT,
    batch_size: int = 100,
    samples: str | Path = DEFAULT_SAMPLES,
    device: torch.device | str = "cpu",
) -> dict:
    """Draw and measure `n` samples at each scale.

    Args:
        pipeline: from `load_sampler`.
        settings: from `resolve_settings`; their scale is not used.
        extractor: the judge.
        scales: of guidance.
        n: samples at each scale.
        batch_size: samples drawn at once.
        samples: folder that keeps them.
        device: what the extractor runs on.

    Returns:
        `n`; `points`, for each scale `guidance_scale`, the class accuracy, the distance, their intervals and the
        protocol of its samples; `protocol`, of the measurement.

    Raises:
        ValueError: guidance is distilled into the checkpoint, or as in `check_sweep`.
    """
    check_sweep(scales, n, extractor)
    if not takes_guidance(pipeline):
        raise ValueError(f"{settings.model}: guidance is distilled into this checkpoint, there is no scale to choose")
    points = []
    for scale in scales:
        nfe = pipeline.nfe(settings.num_inference_steps, scale)
        scaled = replace(settings, guidance_scale=scale, nfe=nfe)
        measured = measure_distance(kept_samples(pipeline, scaled, n, batch_size, samples), extractor, device=device)
        keys = ("class_accuracy", extractor.result_key, "intervals", "samples")
        points.append({"guidance_scale": scale} | {key: measured[key] for key in keys})
    return {"n": n, "points": points, "protocol": measured["protocol"]}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.guidance", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a checkpoint folder of this project")
    parser.add_argument("--scales", nargs="+", type=float, default=list(SCALES), help="of guidance, from 1")
    parser.add_argument("--n", type=int, default=COUNT, help="samples at each scale")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="bf16 samples under autocast")
    parser.add_argument("--compile", action="store_true", help="sample under torch.compile; pays for many steps")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")
    parser.add_argument("--samples", default=DEFAULT_SAMPLES, help="folder that keeps the samples drawn")
    parser.add_argument("--json", help="also write the result to this file")
    args = parser.parse_args(argv)
    judge, device = judge_extractor(), PartialState().device
    check_sweep(args.scales, args.n, judge)
    pipeline = load_sampler(args.model, device)
    settings = resolve_settings(pipeline, args.model, dtype=args.dtype, compiled=args.compile)
    result = measure_guidance(pipeline, settings, judge, args.scales, args.n, args.batch_size, args.samples, device)
    keep_result("eval.guidance", result, args.json)
    for point in result["points"]:
        accuracy, distance = point["class_accuracy"], point[judge.result_key]
        print(f"guidance {point['guidance_scale']:g}: class accuracy {accuracy:.1%}, distance {distance:.2f}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
