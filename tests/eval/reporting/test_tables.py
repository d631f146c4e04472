"""The legend of the tables states the conditions of the timings, and figures that a record lacks have no cell."""

from pathlib import Path

import pytest

from eval.reporting.tables import AUTHENTIC, COPYING, GAUSSIAN, INFINITE, SLICED, legend, record_cells
from eval.schema import Latency, OutsideDistance, OutsideProtocol, Record, Throughput, read_results

TEACHER = read_results(Path(__file__).parents[3] / "docs" / "results.json").records["teacher"]


def waited(timing: Latency, policy: str | None) -> Latency:
    return timing.model_copy(update={"protocol": timing.protocol.model_copy(update={"wait_policy": policy})})


@pytest.mark.parametrize("policy", [None, "PASSIVE"])
def test_the_legend_says_how_the_threads_of_the_timings_waited(policy):
    batches = [waited(batch, policy) for batch in TEACHER.throughput.batches]
    record = Record(latency=waited(TEACHER.latency, policy), throughput=Throughput(batches=batches))
    lines = [line for line in legend([record]) if line]
    assert len(lines) == 2  # latency, throughput
    assert all(f"(OMP_WAIT_POLICY {policy or 'not stated'})" in line for line in lines)


def test_equally_many_images_have_a_column_under_each_extractor():
    kept = TEACHER.frechet_distance
    protocol = OutsideProtocol(**kept.protocol.model_dump() | {"extractor": "other", "judge_sha256": "0" * 64})
    figures = {"frechet_distance_efficientnet": 200.5, "frechet_distance_judge": 8.25}
    samples = kept.samples.model_copy(update={"dtype": "fp32", "compiled": False})
    outside = OutsideDistance(n=2000, protocol=protocol, samples=samples, **figures)
    cells = {title: cell.text for title, cell in record_cells(Record(outside=outside))["quality"].items()}
    assert cells == {
        "Fréchet distance, outside (n = 2,000)": "200.50",
        "Fréchet distance, judge (n = 2,000)": "8.25",
    }
    lines = legend([Record(), Record(outside=outside)])
    assert lines[0].startswith("Outside: the distance by features of other (") and "only where both say so" in lines[0]
    assert lines[2] == "Of outside and judge beside it, the first seeds, drawn in fp32: teacher."


def test_newer_figures_of_quality_are_shown_and_explained_where_they_were_measured():
    older = TEACHER.quality.model_copy(
        update=dict.fromkeys(("gaussian_kernel_distance", "sliced_wasserstein", "frechet_distance_infinity"))
    )
    older = older.model_copy(
        update={"copies": older.copies.model_copy(update=dict.fromkeys(("authentic_fraction", "c_t")))}
    )
    copies = older.copies.model_copy(update={"authentic_fraction": 0.75, "c_t": -1.25})
    figures = {"gaussian_kernel_distance": 1.5, "sliced_wasserstein": 0.125, "directions": 1000, "copies": copies}
    newer = older.model_copy(update=figures)
    titles = (GAUSSIAN, SLICED, INFINITE, AUTHENTIC, COPYING)
    lines = {}
    for quality, texts in (
        (older, [None] * 5),
        (newer, ["1.500", "0.125", None, "75.0%", "-1.2"]),
        (newer.model_copy(update={"frechet_distance_infinity": 2.0}), ["1.500", "0.125", "2.00", "75.0%", "-1.2"]),
    ):
        record = Record(quality=quality)
        cells = record_cells(record)["quality"]
        assert [cells[title].text if title in cells else None for title in titles] == texts
        lines[tuple(texts)] = " ".join(legend([record]))
    explained = [all(title in line for title in titles) for line in lines.values()]
    assert explained == [False, True, True] and "1,000 random directions" in [*lines.values()][1]
