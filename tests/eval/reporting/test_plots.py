"""Which plots are drawn."""

from pathlib import Path

import pytest
from PIL import Image

from eval.reporting.plots import (
    block_shades,
    distance_points,
    draw_evolution,
    network_evaluations,
    sweep_lines,
    write_plots,
)
from eval.schema import GuidancePoint, Record, read_results
from mobilediff.compression.evolution import EvolutionLog, Quality, Step

TEACHER = read_results(Path(__file__).parents[3] / "docs" / "results.json").records["teacher"]


def record(distance: float | None, latency: float | None, nfe: int | None, n: int = 100) -> Record:
    """The shipped teacher's record with other figures, and without the sections that are None."""
    parts = {}
    if nfe is not None:
        parts["size"] = TEACHER.size.model_copy(update={"nfe": nfe})
    if distance is not None:
        figures = {"frechet_distance_judge": distance, "n": n}
        parts["frechet_distance"] = TEACHER.frechet_distance.model_copy(update=figures)
    if latency is not None:
        image = TEACHER.latency.image.model_copy(update={"median_ms": latency})
        parts["latency"] = TEACHER.latency.model_copy(update={"image": image})
    return Record(**parts)


def test_plots_are_drawn_of_what_was_measured(tmp_path):
    records = {"teacher": record(15.0, 2000.0, 100), "student-1step": record(25.0, 30.0, 1)}
    records["CIFAR-10 test"] = record(0.2, None, None, n=1000)
    files = write_plots(records, tmp_path)
    assert [file.name for file in files] == ["distance-latency.png", "distance-nfe.png"]
    for file in files:
        with Image.open(file) as image:
            image.load()
            assert image.size == (910, 585)


def test_a_point_of_fewer_samples_says_so():
    records = {"teacher": record(15.0, None, 100), "student": record(20.0, None, 8, n=2000)}
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
        return GuidancePoint.model_construct(**way, num_inference_steps=4)

    points = [point(3), point(1), point(3, (0.2, 0.8)), point(2), point(1, scheduler="UniPC")]
    lines = sweep_lines(points)
    scales = {name: [one.guidance_scale for one in line] for name, line in lines.items()}
    assert scales == {
        "DDIMScheduler, 4 steps": [1, 2, 3],
        "DDIMScheduler, 4 steps, in 0.2 to 0.8": [1, 3],
        "UniPC, 4 steps": [1],
    }


def test_an_evolution_is_drawn_with_the_blocks_of_each_step(tmp_path):
    figures = {"predicted_ms": 2.0, "measured_ms": 2.1, "quality": Quality(clip_score=30, frechet_distance=9)}
    moves = [("start", [], []), ("remove", ["a", "c"], ["a", "c"]), ("add", ["c"], ["a"])]
    steps = [
        Step(action=action, blocks=moved, removed_blocks=removed, candidates=[], **figures)
        for action, moved, removed in moves
    ]
    noise = Quality(clip_score=0.1, frechet_distance=0.2)
    log = EvolutionLog(protocol={}, blocks=["a", "b", "c"], noise=noise, steps=steps)
    assert block_shades(log).tolist() == [[1, 1, 1], [0.5, 1, 0.5], [0, 1, 0.5]]
    draw_evolution(log, tmp_path / "evolution.png")
    with Image.open(tmp_path / "evolution.png") as image:
        image.load()
        assert image.size == (1950, 585)
