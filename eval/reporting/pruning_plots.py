"""Plot a pruning curve, and a heat map of the layers' sensitivity."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import NullFormatter

from eval.reporting.plots import QUALITY_LABELS, RESOLUTION, save_figure
from mobilediff.compression.pruned import PruningCurve, PruningPoint, Sensitivity

METHOD_COLOURS = {"unstructured": "tab:orange", "structured": "tab:blue", "blocks": "tab:green"}
STYLES = ("o-", "s--", "^:", "D-.")  # without repair, then by the number of its steps
LEAST_ERROR = 1e-3  # the colour of this one and of all below it


def curve_costs(curve: PruningCurve) -> dict[str, Callable[[PruningPoint], float | None]]:
    """Return what a curve's distances are drawn against, by label: ratio, latency by runtime, bytes.

    A latency is None where it was not measured.
    """
    costs: dict[str, Callable[[PruningPoint], float | None]] = {"pruning ratio": lambda point: point.pruning_ratio}
    for runtime in curve.runtimes():
        costs[f"latency in {runtime} (unpruned: 1)"] = lambda point, runtime=runtime: (
            point.latency[runtime].relative if runtime in point.latency else None
        )
    costs["file, MB"] = lambda point: point.weights_bytes / 1e6
    costs["file through gzip, MB"] = lambda point: point.gzip_bytes / 1e6
    return costs


def draw_curve(curve: PruningCurve, file: str | Path) -> None:
    """Draw the distance of a curve's points against each of `curve_costs`, a line a method and repair, as PNG."""
    costs = curve_costs(curve)
    repairs = sorted({point.repair_steps for point in curve.points})
    (unpruned,) = (point for point in curve.points if point.method is None)
    figure, panels = plt.subplots(
        1, len(costs), figsize=(3.1 * len(costs), 3.8), dpi=RESOLUTION, sharey=True, squeeze=False
    )
    for axes, (label, cost) in zip(panels[0], costs.items(), strict=True):
        for method, colour in METHOD_COLOURS.items():
            for steps, style in zip(repairs, STYLES, strict=False):
                line = curve.line(method, steps)  # pyright: ignore[reportArgumentType] - one of the methods
                if line := [point for point in line if cost(point) is not None]:
                    name = f"{method}, {steps} steps of repair" if steps else method
                    distances = [point.quality.frechet_distance for point in line]
                    axes.plot(list(map(cost, line)), distances, style, color=colour, markersize=4, label=name)
        if (at := cost(unpruned)) is not None:
            axes.plot(at, unpruned.quality.frechet_distance, "k*", label="unpruned")
        axes.set_xlabel(label)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    panels[0][0].set_ylabel(QUALITY_LABELS["frechet_distance"])
    panels[0][0].legend(fontsize=7)
    save_figure(figure, file)


def sensitivity_matrix(sensitivity: Sensitivity) -> np.ndarray:
    """Arrange the errors, a row a layer and a column a ratio; NaN of what was not measured; [layers, ratios]."""
    columns = [sensitivity.of(ratio) for ratio in sensitivity.ratios()]
    return np.array([[column.get(layer, np.nan) for column in columns] for layer in sensitivity.layers])


def draw_sensitivity(sensitivity: Sensitivity, file: str | Path) -> None:
    """Draw the errors as a heat map of layers by ratios, colours on a logarithmic scale, as PNG."""
    ratios, layers = sensitivity.ratios(), list(sensitivity.layers)
    figure, axes = plt.subplots(figsize=(3.5 + 0.35 * len(ratios), 1 + 0.14 * len(layers)), dpi=RESOLUTION)
    errors = np.maximum(sensitivity_matrix(sensitivity), LEAST_ERROR)
    highest = max(1.0, float(np.nanmax(errors)))
    image = axes.imshow(errors, cmap="viridis", norm=LogNorm(LEAST_ERROR, highest), aspect="auto")
    axes.set_yticks(range(len(layers)), layers, fontsize=6)
    axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios], fontsize=7)
    axes.set_xlabel("pruning ratio of the layer alone", fontsize=8)
    colours = figure.colorbar(image, ax=axes, location="top", pad=0.01, fraction=0.015, aspect=30, format="%g")
    colours.set_label("relative error of the latents", fontsize=8)
    colours.ax.tick_params(labelsize=7)
    save_figure(figure, file)
