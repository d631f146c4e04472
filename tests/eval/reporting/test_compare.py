"""Decide which figures moved between two result files."""

import json
from pathlib import Path

import pytest

from eval.reporting.compare import Change, changes_table, compare_results, unmatched_rows
from eval.schema import check_results

SHIPPED = Path(__file__).parents[3] / "docs" / "results.json"


def results(distance: float, width: float, median: float) -> dict:
    """Content of a result file: one row, the shipped teacher's, with other figures."""
    teacher = json.loads(SHIPPED.read_text(encoding="utf-8"))["records"]["teacher"]
    record = {key: teacher[key] for key in ("frechet_distance", "latency")}
    interval = {"low": distance - width, "high": distance + width, "confidence": 0.95, "resamples": 100}
    record["frechet_distance"] |= {"frechet_distance_judge": distance, "n": 100, "class_accuracy": None}
    record["frechet_distance"]["intervals"] = {"frechet_distance_judge": interval}
    record["latency"]["image"] |= {"median_ms": median, "p90_ms": 1.2 * median}
    return {"schema": 5, "records": {"student": record}}


def compared(before: dict, after: dict) -> list[Change]:
    return compare_results(check_results(before, "before"), check_results(after, "after"))


def verdicts(before: dict, after: dict) -> dict[str, str]:
    return {change.figure: change.verdict for change in compared(before, after)}


@pytest.mark.parametrize(("after", "verdict"), [(12.0, "within"), (15.0, "moved"), (5.0, "moved")])
def test_a_distance_moved_if_the_intervals_are_apart(after, verdict):
    found = verdicts(results(10.0, 2.0, 100.0), results(after, 2.0, 100.0))
    assert found["frechet_distance frechet_distance_judge"] == verdict
    assert found["frechet_distance floor"] == "no interval" and "frechet_distance n" not in found


@pytest.mark.parametrize(("after", "verdict"), [(110, "within"), (130, "moved"), (80, "moved"), (90, "within")])
def test_a_latency_moved_if_a_median_is_beyond_the_other_p90(after, verdict):
    assert verdicts(results(10.0, 2.0, 100.0), results(10.0, 2.0, after))["latency image (ms)"] == verdict


def test_figures_of_another_extractor_or_machine_are_not_judged():
    before, after = results(10.0, 1.0, 100.0), results(20.0, 1.0, 200.0)
    after["records"]["student"]["frechet_distance"]["protocol"]["extractor_sha256"] = "b" * 64
    after["records"]["student"]["latency"]["protocol"]["device_name"] = "gpu"
    after["records"]["other"] = {}
    first, second = check_results(before, "before"), check_results(after, "after")
    assert unmatched_rows(first, second) == ["other: only in the file after"]
    assert unmatched_rows(second, first) == ["other: only in the file before"]
    assert verdicts(before, after) == {
        "frechet_distance frechet_distance_judge": "not comparable: another extractor_sha256",
        "frechet_distance floor": "not comparable: another extractor_sha256",
        "latency network_call (ms)": "not comparable: another device_name",
        "latency image (ms)": "not comparable: another device_name",
    }


@pytest.mark.parametrize(("key", "before", "after"), [("wait_policy", None, "PASSIVE"), ("neighbours", 0, 2)])
def test_latencies_beside_others_or_of_threads_that_wait_otherwise_are_not_judged(key, before, after):
    files = [results(10.0, 1.0, 100.0), results(10.0, 1.0, 200.0)]
    for file, value in zip(files, (before, after), strict=True):
        file["records"]["student"]["latency"]["protocol"][key] = value
    assert verdicts(*files)["latency image (ms)"] == f"not comparable: another {key}"


def test_distances_of_other_numbers_of_samples_are_not_judged():
    before, after = results(10.0, 1.0, 100.0), results(20.0, 1.0, 100.0)
    after["records"]["student"]["frechet_distance"]["n"] = 50
    assert verdicts(before, after)["frechet_distance frechet_distance_judge"] == "not comparable: another n"


def test_accuracies_of_other_numbers_of_samples_are_judged():
    before, after = results(10.0, 1.0, 100.0), results(20.0, 1.0, 100.0)
    after["records"]["student"]["frechet_distance"]["n"] = 50
    for file, low in ((before, 0.5), (after, 0.8)):
        distance = file["records"]["student"]["frechet_distance"]
        distance["class_accuracy"] = low + 0.05
        distance["intervals"]["class_accuracy"] = {
            "low": low, "high": low + 0.1, "confidence": 0.95, "resamples": 100,
        }  # fmt: skip
    assert verdicts(before, after)["frechet_distance class_accuracy"] == "moved"


def test_the_table_shows_what_is_not_within_and_counts_what_moved():
    before, after = results(10.0, 2.0, 100.0), results(20.0, 2.0, 100.0)
    table = changes_table(compared(before, after))
    assert "frechet_distance_judge" in table and "latency" not in table
    assert table.splitlines()[-1].startswith("1 of 4 figures moved")


def test_files_without_a_common_row_are_refused():
    other = results(10.0, 2.0, 100.0)
    other["records"]["teacher"] = other["records"].pop("student")
    with pytest.raises(ValueError, match="no row is in both"):
        compared(results(10.0, 2.0, 100.0), other)
