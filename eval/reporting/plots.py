"""Plot distance over latency and NFE, nearest training images, guidance sweeps, and the path of an evolution."""

from collections.abc import Callable
from io import BytesIO
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from eval.reporting.pareto import pareto_front
from eval.schema import Copies, GuidancePoint, GuidanceResult, Record
from mobilediff.compression.evolution import EvolutionLog, Measure
from mobilediff.files import atomic_path

plt.rcParams["text.parse_math"] = False  # a model's name may hold dollars
SIZE, RESOLUTION = (7.0, 4.5), 130  # inches, dots an inch
COLOURS = 128  # a third of the bytes of all colours
MARKERS = "osD^vP*X<>"
QUALITY_LABELS: dict[Measure, str] = {
    "clip_score": "CLIP score (higher is better)",
    "frechet_distance": "Fréchet distance, judge (lower is better)",
}
PRESENT, MOVED = 1.0, 0.5  # shades of a block that is there, and of one that the step has moved


def distance_points(
    records: dict[str, Record], cost: Callable[[Record], float | None]
) -> dict[str, tuple[float, float]]:
    """List (cost, Frechet distance) of every record that holds both, by label.

    A label adds the number of samples where other records have more: the distance of fewer is biased upward.

    Args:
        records: of the report.
        cost: returns a record's cost, or None where it was not measured.
    """
    measured = {
        name: (value, record.frechet_distance)
        for name, record in records.items()
        if record.frechet_distance and (value := cost(record)) is not None
    }
    most = max((distance.n for _, distance in measured.values()), default=0)
    points = {}
    for name, (value, distance) in measured.items():
        label = name if distance.n == most else f"{name} (n = {distance.n:,})"
        points[label] = (value, distance.frechet_distance_judge)
    return points


def image_latency(record: Record) -> float | None:
    """Return the median milliseconds of an image, if measured."""
    image = record.latency and record.latency.image
    return image and image.median_ms


def network_evaluations(record: Record) -> int | None:
    """Return the NFE of an image, if measured."""
    return record.size and record.size.nfe


def save_figure(figure: plt.Figure, file: str | Path) -> None:
    """Write a figure as a PNG file of `COLOURS` colours in one piece, and close it."""
    figure.tight_layout()
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    with Image.open(drawn) as picture, atomic_path(file) as temporary:
        picture.convert("RGB").quantize(COLOURS).save(temporary, format="PNG", optimize=True)


def draw_points(points: dict[str, tuple[float, float]], floor: float, x_label: str, file: str | Path) -> None:
    """Draw distances over a logarithmic cost, with Pareto front and floor, into a PNG file."""
    figure, axes = plt.subplots(figsize=SIZE, dpi=RESOLUTION)
    front = pareto_front(points)
    axes.plot(*zip(*(points[name] for name in front), strict=True), color="tab:blue", alpha=0.4, label="Pareto front")
    for (name, (x, y)), marker in zip(points.items(), cycle(MARKERS), strict=False):
        axes.plot(x, y, marker, color="tab:blue" if name in front else "tab:gray", label=f"{name}: {y:.2f}")
    axes.axhline(floor, color="tab:green", linestyle="--", linewidth=1, label="floor: test set against training set")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel("Fréchet distance (judge)")
    axes.legend(fontsize=8)
    save_figure(figure, file)


def sweep_lines(points: list[GuidancePoint]) -> dict[str, list[GuidancePoint]]:
    """Group the points of a sweep into lines by scheduler, steps and interval.

    A point without guidance starts every line of its scheduler and steps.
    """
    lines = {}
    for point in sorted(points, key=lambda point: point.guidance_scale, reverse=True):
        solver = point.scheduler, point.num_inference_steps
        guided = [interval for *way, interval in lines if tuple(way) == solver]
        intervals = [tuple(point.guidance_interval)] if point.guidance_scale > 1 else guided or [(0, 1)]
        for interval in intervals:
            lines.setdefault((*solver, interval), []).insert(0, point)
    named = {}
    for (scheduler, steps, (low, high)), line in lines.items():
        place = f", in {low:g} to {high:g}" if (low, high) != (0, 1) else ""
        named[f"{scheduler}, {steps} steps{place}"] = line
    return named


def draw_guidance(sweep: GuidanceResult, file: str | Path) -> None:
    """Plot class accuracy and Frechet distance over the guidance scale, intervals shaded, as PNG."""
    wide, high = SIZE
    figure, panels = plt.subplots(ncols=2, figsize=(1.5 * wide, high), dpi=RESOLUTION)
    shown = (
        ("class_accuracy", "class accuracy (judge, %)", 100),
        ("frechet_distance_judge", "Fréchet distance (judge)", 1),
    )
    for axes, (key, label, unit) in zip(panels, shown, strict=True):
        for way, points in sweep_lines(sweep.points).items():
            scales = [point.guidance_scale for point in points]
            (line,) = axes.plot(scales, [unit * getattr(point, key) for point in points], "o-", label=way)
            ends = ([unit * getattr(point.intervals[key], end) for point in points] for end in ("low", "high"))
            axes.fill_between(scales, *ends, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set_xlabel("guidance scale")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    panels[0].set_title(f"{sweep.points[0].samples.model}, n = {sweep.n:,} a point", fontsize=10)
    save_figure(figure, file)


def draw_copies(copies: dict[str, Copies], file: str | Path) -> None:
    """Plot histograms of nearest training distances, samples over test images, into a PNG file.

    Args:
        copies: of models, by name.
    """
    columns = min(3, len(copies))
    rows = -(-len(copies) // columns)
    wide, high = SIZE
    figure, panels = plt.subplots(
        rows, columns, figsize=(0.5 * wide * columns, 0.55 * high * rows), dpi=RESOLUTION, squeeze=False
    )
    for axes in panels.flat[len(copies) :]:
        axes.set_axis_off()
    for axes, (name, one) in zip(panels.flat, copies.items(), strict=False):
        histogram = one.histogram
        for counts, colour, label, n in (
            (histogram.test, "tab:gray", "test images", one.n_test),
            (histogram.samples, "tab:blue", "samples", one.n),
        ):
            percentages = [100 * count / n for count in counts]
            axes.stairs(percentages, histogram.edges, fill=True, alpha=0.5, color=colour, label=label)
        axes.axvline(one.copy_threshold, color="tab:red", linewidth=1, linestyle="--")
        axes.set_title(f"{name}\n{one.copy_fraction:.1%} left of the line", fontsize=8)
        axes.set_xlabel("distance to the nearest training image", fontsize=8)
        axes.set_ylabel("fraction of the images (%)", fontsize=8)
        axes.legend(fontsize=7)
    save_figure(figure, file)


def write_plots(records: dict[str, Record], folder: str | Path) -> list[Path]:
    """Draw every plot whose figures were measured into `folder` and return the files."""
    kinds = {
        "distance-latency.png": (image_latency, "latency of an image, batch 1 (ms, median)"),
        "distance-nfe.png": (network_evaluations, "network evaluations an image"),
    }
    files = []
    for name, (cost, label) in kinds.items():
        if points := distance_points(records, cost):
            floor = next(one.frechet_distance.floor for one in records.values() if one.frechet_distance)
            draw_points(points, floor, label, Path(folder) / name)
            files.append(Path(folder) / name)
    copies = {name: record.quality.copies for name, record in records.items() if record.quality and record.model}
    if copies:
        files.append(Path(folder) / "near-copies.png")
        draw_copies(copies, files[-1])
    return files


def block_shades(log: EvolutionLog) -> np.ndarray:
    """Shade each block at each step: 1 there, 0 removed, 0.5 removed or added by this step; [steps, blocks]."""
    rows = []
    for step in log.steps:
        shades = {block: 0.0 if block in step.removed_blocks else PRESENT for block in log.blocks}
        rows.append([MOVED if block in step.blocks else shade for block, shade in shades.items()])
    return np.array(rows)


def draw_evolution(log: EvolutionLog, file: str | Path) -> None:
    """Draw the steps of a log into a PNG file: blocks by step, then a path for each figure with its noise."""
    height = max(4.5, 0.3 * len(log.blocks))
    figure, (network, *planes) = plt.subplots(
        1,
        1 + len(QUALITY_LABELS),
        figsize=(6 + 4.5 * len(QUALITY_LABELS), height),
        dpi=RESOLUTION,
        width_ratios=[1.4, 1, 1],
    )
    network.imshow(block_shades(log).T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    network.set_yticks(range(len(log.blocks)), log.blocks, fontsize=7)
    signs = {"start": "", "remove": "-", "add": "+"}
    labels = [f"{signs[step.action]}{len(step.blocks) or ''}" or "start" for step in log.steps]
    network.set_xticks(range(len(log.steps)), labels, fontsize=7)
    network.set_xlabel("step: blocks removed (-) or added (+), in a lighter shade")
    for axes, (measure, label) in zip(planes, QUALITY_LABELS.items(), strict=True):
        figures = [getattr(step.quality, measure) for step in log.steps]
        noise = getattr(log.noise, measure)
        for name, style in (("predicted_ms", "o-"), ("measured_ms", "x:")):
            latencies = [getattr(step, name) for step in log.steps]
            axes.errorbar(latencies, figures, yerr=noise, fmt=style, capsize=2, label=name.removesuffix("_ms"))
        for size in log.sizes:
            axes.axvline(size.target_ms, color="tab:gray", linewidth=1, linestyle=":")
        axes.set_xlabel("network call, ms (dotted: targets)")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    save_figure(figure, file)
