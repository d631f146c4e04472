"""Measure class accuracy and Frechet distance along a sweep of guidance, solver and steps."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from eval.extractors.base import Extractor
from eval.extractors.features import FeatureSet
from eval.extractors.statistics import check_image_count
from eval.measures.frechet import measure_frechet_distance
from eval.samples.settings import CheckpointSettings
from eval.samples.store import DEFAULT_SAMPLES, kept_samples
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.schedulers.compatible import choose_scheduler

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
    check_image_count(n, extractor)


def sweep_points(
    pipeline: MobileDiffusionPipeline,
    settings: CheckpointSettings,
    scales: list[float],
    intervals: list[list[float]] | None = None,
    steps: list[int] | None = None,
    schedulers: list[str] | None = None,
) -> list[CheckpointSettings]:
    """List the settings of every combination; None leaves those of `settings`.

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
        device: of the extractor.

    Returns:
        `n`; `points`, each with its values of `VARIED`, the class accuracy, the distance, their intervals and the
        protocol of its samples; `protocol`, of the measurement.
    """
    own, measured_points = type(pipeline.scheduler).__name__, []
    for point in points:
        choose_scheduler(pipeline, point.scheduler)
        images = kept_samples(pipeline, point, n, batch_size, samples)
        measured = measure_frechet_distance(FeatureSet(images, device), extractor)
        keys = ("class_accuracy", extractor.result_key, "intervals", "samples")
        varied = {key: getattr(point, key) for key in VARIED}
        measured_points.append(varied | {key: measured[key] for key in keys})
        print(describe_point(measured_points[-1], extractor), flush=True)
    choose_scheduler(pipeline, own)
    return {"n": n, "points": measured_points, "protocol": measured["protocol"]}


def describe_point(point: dict, extractor: Extractor) -> str:
    """Describe a point of `measure_guidance` in one line."""
    low, high = point["guidance_interval"]
    way = f"{point['scheduler']}, {point['num_inference_steps']} steps, guidance {point['guidance_scale']:g}"
    way += f" in {low:g} to {high:g}" if (low, high) != (0, 1) else ""
    accuracy, frechet_distance = point["class_accuracy"], point[extractor.result_key]
    return f"{way} ({point['samples']['nfe']} NFE): class accuracy {accuracy:.1%}, distance {frechet_distance:.2f}"
