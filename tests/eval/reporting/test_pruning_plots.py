"""The pruning curve's costs and the matrix of the layers' errors, and that both are drawn."""

import numpy as np
import pytest
from PIL import Image

from eval.reporting.pruning_plots import curve_costs, draw_curve, draw_sensitivity, sensitivity_matrix
from mobilediff.compression.evolution import Quality
from mobilediff.compression.pruned import LayerError, PruningCurve, PruningPoint, Sensitivity, TurnTime


def point(method: str | None, ratio: float, steps: int, distance: float) -> PruningPoint:
    return PruningPoint(
        method=method,  # pyright: ignore[reportArgumentType]
        pruning_ratio=ratio,
        repair_steps=steps,
        removed_blocks=[],
        params=100,
        nonzero_params=60,
        macs=1000,
        weights_bytes=3_000_000,
        gzip_bytes=2_000_000,
        latency={"pytorch": TurnTime(median_ms=3, unpruned_ms=4)},
        quality=Quality(clip_score=50, frechet_distance=distance),
    )


@pytest.fixture
def curve():
    points = [
        point(None, 0, 0, 4),
        point("blocks", 0.5, 0, 9),
        point("blocks", 0.1, 0, 5),
        point("blocks", 0.5, 30, 6),
    ]
    noise = Quality(clip_score=0.1, frechet_distance=0.2)
    return PruningCurve(protocol={}, noise=noise, block_errors={"a": 0.1}, points=points)


def test_a_line_is_of_one_method_and_repair_by_ratio(curve):
    assert [one.pruning_ratio for one in curve.line("blocks", 0)] == [0.1, 0.5]
    assert [one.quality.frechet_distance for one in curve.line("blocks", 30)] == [6]
    assert curve.line("structured", 0) == []


def test_a_curve_is_drawn_against_ratio_latency_and_bytes(curve, tmp_path):
    costs = {label: cost(curve.points[1]) for label, cost in curve_costs(curve).items()}
    expected = {"pruning ratio": 0.5, "latency in pytorch (unpruned: 1)": 0.75}
    assert costs == expected | {"file, MB": 3, "file through gzip, MB": 2}
    untimed = curve.points[3].model_copy(update={"latency": {}})
    assert curve_costs(curve)["latency in pytorch (unpruned: 1)"](untimed) is None
    curve = curve.with_point(untimed)
    assert curve.points[3] == untimed and len(curve.points) == 4
    draw_curve(curve, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        image.load()
        assert image.mode == "P" and image.size == (1612, 494)


def test_sensitivities_are_drawn_as_layers_by_ratios(tmp_path):
    errors = [("a", 0.5, 0.2), ("b", 0.5, 0.0), ("a", 0.1, 0.02)]
    records = [LayerError(layer=layer, pruning_ratio=ratio, error=error) for layer, ratio, error in errors]
    sensitivity = Sensitivity(protocol={}, layers={"a": 4, "b": 6}, errors=records)
    np.testing.assert_equal(sensitivity_matrix(sensitivity), [[0.02, 0.2], [np.nan, 0]])
    draw_sensitivity(sensitivity, tmp_path / "sensitivity.png")
    with Image.open(tmp_path / "sensitivity.png") as image:
        image.load()
        assert image.mode == "P"
