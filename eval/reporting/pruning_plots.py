"""Plot a pruning curve, and a heat map of the layers' sensitivity."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from eval.reporting.plots import QUALITY_LABELS, RESOLUTION, save_figure
from mobilediff.compression.pruned import PruningCurve, PruningPoint, Sensitivity

METHOD_COLOURS = {"unstructured": "tab:orange", "structured": "tab:blue", "blocks": "tab:green"}
STYLES = ("o-", "s--", "^:", "D-.")  # without repair, then by the number of its steps
LEAST_ERROR = 1e-3  # the colour of this one and of all below it


def curve_costs(curve: PruningCurve) -> dict[str, Callable[[PruningPoint], float]]:
    """Return what a curve's distances are drawn against, by label: ratio, latency by runtime, bytes."""
    costs: dict[str, Callable[[PruningPoint], float]] = {"pruning ratio": lambda point: point.pruning_ratio}
    for runtime in curve.protocol["runtimes"]:
        costs[f"latency in {runtime} (unpruned: 1)"] = lambda point, runtime=runtime: point.latency[runtime].relative
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
                if line := curve.line(method, steps):  # pyright: ignore[reportArgumentType] - one of the methods
                    name = f"{method}, {steps} steps of repair" if steps else method
                    distances = [point.quality.frechet_distance for point in line]
                    axes.plot(list(map(cost, line)), distances, style, color=colour, markersize=4, label=name)
        axes.plot(cost(unpruned), unpruned.quality.frechet_distance, "k*", label="unpruned")
        axes.set_xlabel(label)
        axes.set_yscale("log")
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
    figure, axes = plt.subplots(figsize=(4.5 + 0.45 * len(ratios), 1 + 0.14 * len(layers)), dpi=RESOLUTION)
    errors = np.maximum(sensitivity_matrix(sensitivity), LEAST_ERROR)
    highest = max(1.0, float(np.nanmax(errors)))
    image = axes.imshow(errors, cmap="viridis", norm=LogNorm(LEAST_ERROR, highest), aspect="auto")
    axes.set_yticks(range(len(layers)), layers, fontsize=6)
    axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios], fontsize=7)
    axes.set_xlabel("pruning ratio of the layer alone", fontsize=8)
    figure.colorbar(image, ax=axes, label="relative error of the latents")
    save_figure(figure, file)
