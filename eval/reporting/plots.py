"""Plots: of the report's records distance against latency and network evaluations with the Pareto front, and how near
samples are to training images; of a sweep class accuracy and distance against guidance."""

from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mobilediff.files import atomic_path

SIZE, RESOLUTION = (7.0, 4.5), 130  # inches, dots an inch
FRECHET_DISTANCE = "frechet_distance_judge"
MARKERS = "osD^vP*X<>"


def pareto_front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other is at least as good as in both coordinates and better in one.

    Args:
        points: (cost, distance) by name; lower is better in both.

    Returns:
        The names, the cheapest first.
    """

    def dominated(name: str) -> bool:
        x, y = points[name]
        return any(a <= x and b <= y and (a, b) != (x, y) for a, b in points.values())

    return sorted((name for name in points if not dominated(name)), key=points.get)


def distance_points(records: dict[str, dict], cost) -> dict[str, tuple[float, float]]:
    """(cost, Frechet distance) of every record that holds both, by name.

    A name says its number of samples where others have more, as a distance of fewer is biased upward.

    Args:
        records: of the report.
        cost: a record to its cost, or None where it was not measured.
    """
    measured = {name: record for name, record in records.items() if "distance" in record and cost(record) is not None}
    most = max((record["distance"]["n"] for record in measured.values()), default=0)
    points = {}
    for name, record in measured.items():
        n = record["distance"]["n"]
        label = name if n == most else f"{name} (n = {n:,})"
        points[label] = (cost(record), record["distance"][FRECHET_DISTANCE])
    return points


def image_latency(record: dict) -> float | None:
    """Median milliseconds of an image, if measured."""
    return record.get("latency", {}).get("image", {}).get("median_ms")


def network_evaluations(record: dict) -> float | None:
    """NFE of an image, if it is a model's record."""
    return record.get("size", {}).get("nfe")


def save_figure(figure: plt.Figure, file: str | Path) -> None:
    """Write a figure as a PNG file in one piece, and close it."""
    figure.tight_layout()
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)


def draw_points(points: dict[str, tuple[float, float]], floor: float, x_label: str, file: str | Path) -> None:
    """A scatter plot over a logarithmic cost, the Pareto front as a line and the floor dashed, into a PNG file."""
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


def sweep_lines(points: list[dict]) -> dict[str, list[dict]]:
    """The points of a sweep by all that varies beside the scale, each line from its smallest scale on.

    A point without guidance is the start of every line of its scheduler and steps.
    """
    lines = {}
    for point in sorted(points, key=lambda point: point["guidance_scale"], reverse=True):
        solver = point["scheduler"], point["num_inference_steps"]
        guided = [interval for *way, interval in lines if tuple(way) == solver]
        intervals = [tuple(point["guidance_interval"])] if point["guidance_scale"] > 1 else guided or [(0, 1)]
        for interval in intervals:
            lines.setdefault((*solver, interval), []).insert(0, point)
    named = {}
    for (scheduler, steps, (low, high)), line in lines.items():
        place = f", in {low:g} to {high:g}" if (low, high) != (0, 1) else ""
        named[f"{scheduler}, {steps} steps{place}"] = line
    return named


def draw_guidance(sweep: dict, file: str | Path) -> None:
    """Class accuracy and distance against the scale of guidance, the lines of `sweep_lines`, into a PNG file.

    Args:
        sweep: from `measure_guidance`; intervals of its figures are shaded.
    """
    wide, high = SIZE
    figure, panels = plt.subplots(ncols=2, figsize=(1.5 * wide, high), dpi=RESOLUTION)
    shown = (("class_accuracy", "class accuracy (judge, %)", 100), (FRECHET_DISTANCE, "Fréchet distance (judge)", 1))
    for axes, (key, label, unit) in zip(panels, shown, strict=True):
        for way, points in sweep_lines(sweep["points"]).items():
            scales = [point["guidance_scale"] for point in points]
            (line,) = axes.plot(scales, [unit * point[key] for point in points], "o-", label=way)
            ends = ([unit * point["intervals"][key][end] for point in points] for end in ("low", "high"))
            axes.fill_between(scales, *ends, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set_xlabel("guidance scale")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    panels[0].set_title(f"{sweep['points'][0]['samples']['model']}, n = {sweep['n']:,} a point", fontsize=10)
    save_figure(figure, file)


def draw_copies(records: dict[str, dict], file: str | Path) -> None:
    """Distances to the nearest training image, as a histogram a model over that of the test images, into a PNG file.

    Args:
        records: of the report, each with a section `quality`.
    """
    columns = min(3, len(records))
    rows = -(-len(records) // columns)
    wide, high = SIZE
    figure, panels = plt.subplots(
        rows, columns, figsize=(0.5 * wide * columns, 0.55 * high * rows), dpi=RESOLUTION, squeeze=False
    )
    for axes in panels.flat[len(records) :]:
        axes.set_axis_off()
    for axes, (name, record) in zip(panels.flat, records.items(), strict=False):
        copies = record["quality"]["copies"]
        counts = copies["histogram"]
        for key, colour, label, n in (
            ("test", "tab:gray", "test images", copies["n_test"]),
            ("samples", "tab:blue", "samples", copies["n"]),
        ):
            percentages = [100 * count / n for count in counts[key]]
            axes.stairs(percentages, counts["edges"], fill=True, alpha=0.5, color=colour, label=label)
        axes.axvline(copies["copy_threshold"], color="tab:red", linewidth=1, linestyle="--")
        axes.set_title(f"{name}\n{copies['copy_share']:.1%} left of the line", fontsize=8)
        axes.set_xlabel("distance to the nearest training image", fontsize=8)
        axes.set_ylabel("share of the images (%)", fontsize=8)
        axes.legend(fontsize=7)
    save_figure(figure, file)


def write_plots(records: dict[str, dict], folder: str | Path) -> list[Path]:
    """All plots into `folder`; one whose figures were not measured is left out.

    Returns:
        The files written.
    """
    kinds = {
        "distance-latency.png": (image_latency, "latency of an image, batch 1 (ms, median)"),
        "distance-nfe.png": (network_evaluations, "network evaluations an image"),
    }
    files = []
    for name, (cost, label) in kinds.items():
        if points := distance_points(records, cost):
            floor = next(record["distance"]["floor"] for record in records.values() if "distance" in record)
            draw_points(points, floor, label, Path(folder) / name)
            files.append(Path(folder) / name)
    models = {name: record for name, record in records.items() if "quality" in record and "model" in record}
    if models:
        files.append(Path(folder) / "near-copies.png")
        draw_copies(models, files[-1])
    return files
