"""The Pareto front and which plots are drawn."""

import pytest
from PIL import Image

from eval.reporting.plots import distance_points, network_evaluations, pareto_front, sweep_lines, write_plots


def test_the_pareto_front_holds_what_nothing_beats():
    points = {"slow": (100, 5), "fast": (1, 9), "middle": (10, 7), "beaten": (20, 8), "as fast, worse": (1, 10)}
    assert pareto_front(points) == ["fast", "middle", "slow"]
    assert sorted(pareto_front({"one": (1, 1), "twin": (1, 1)})) == ["one", "twin"]


def record(distance: float | None, latency: float | None, nfe: int) -> dict:
    parts = {"size": {"nfe": nfe}}
    if distance is not None:
        parts["distance"] = {"frechet_distance_judge": distance, "floor": 0.2, "n": 100}
    if latency is not None:
        parts["latency"] = {"image": {"median_ms": latency}}
    return parts


def test_plots_are_drawn_of_what_was_measured(tmp_path):
    records = {"teacher": record(15.0, 2000.0, 100), "student-1step": record(25.0, 30.0, 1)}
    records["CIFAR-10 test"] = {"distance": {"frechet_distance_judge": 0.2, "floor": 0.2, "n": 1000}}
    files = write_plots(records, tmp_path)
    assert [file.name for file in files] == ["distance-latency.png", "distance-nfe.png"]
    for file in files:
        with Image.open(file) as image:
            image.load()
            assert image.size == (910, 585)


def test_a_point_of_fewer_samples_says_so():
    records = {"teacher": record(15.0, None, 100), "student": record(20.0, None, 8)}
    records["student"]["distance"]["n"] = 2000
    assert distance_points(records, network_evaluations) == {"teacher (n = 100)": (100, 15.0), "student": (8, 20.0)}


@pytest.mark.parametrize(
    ("records", "expected"),
    [({"a": record(15.0, None, 8)}, ["distance-nfe.png"]), ({"a": record(None, 20.0, 8)}, [])],
)
def test_a_plot_without_figures_is_left_out(records, expected, tmp_path):
    assert [file.name for file in write_plots(records, tmp_path)] == expected


def test_a_sweep_has_a_line_for_each_way_and_all_start_without_guidance():
    def point(scale, interval=(0, 1), scheduler="DDIMScheduler"):
        way = {"guidance_scale": scale, "guidance_interval": list(interval), "scheduler": scheduler}
        return way | {"num_inference_steps": 4}

    points = [point(3), point(1), point(3, (0.2, 0.8)), point(2), point(1, scheduler="UniPC")]
    lines = sweep_lines(points)
    scales = {name: [one["guidance_scale"] for one in line] for name, line in lines.items()}
    assert scales == {
        "DDIMScheduler, 4 steps": [1, 2, 3],
        "DDIMScheduler, 4 steps, in 0.2 to 0.8": [1, 3],
        "UniPC, 4 steps": [1],
    }
