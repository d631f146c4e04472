"""What counts as moved between two result files."""

import copy

import pytest

from eval.reporting.compare import changes_table, compare_results, unmatched_rows

PROTOCOL = {"extractor_sha256": "a", "resize": "none", "reference_sha256": "r"}


def results(distance: float, width: float, median: float) -> dict:
    record = {
        "distance": {
            "frechet_distance_judge": distance,
            "floor": 0.5,
            "n": 100,
            "intervals": {"frechet_distance_judge": {"low": distance - width, "high": distance + width}},
            "protocol": dict(PROTOCOL),
        },
        "latency": {
            "image": {"median_ms": median, "p90_ms": 1.2 * median, "runs": 20},
            "protocol": {"device_name": "cpu", "threads": 2, "dtype": "fp32", "batch_size": 1},
        },
    }
    return {"schema": 4, "records": {"student": record}}


def verdicts(before: dict, after: dict) -> dict[str, str]:
    return {change.figure: change.verdict for change in compare_results(before, after)}


@pytest.mark.parametrize(("after", "verdict"), [(12.0, "within"), (15.0, "moved"), (5.0, "moved")])
def test_a_distance_moved_if_the_intervals_are_apart(after, verdict):
    found = verdicts(results(10.0, 2.0, 100.0), results(after, 2.0, 100.0))
    assert found["distance frechet_distance_judge"] == verdict
    assert found["distance floor"] == "no interval" and "distance n" not in found


@pytest.mark.parametrize(("after", "verdict"), [(110, "within"), (130, "moved"), (80, "moved"), (90, "within")])
def test_a_latency_moved_if_a_median_is_beyond_the_other_p90(after, verdict):
    assert verdicts(results(10.0, 2.0, 100.0), results(10.0, 2.0, after))["latency image (ms)"] == verdict


def test_figures_of_another_extractor_or_machine_are_not_judged():
    before, after = results(10.0, 1.0, 100.0), results(20.0, 1.0, 200.0)
    after["records"]["student"]["distance"]["protocol"]["extractor_sha256"] = "b"
    after["records"]["student"]["latency"]["protocol"]["device_name"] = "gpu"
    after["records"]["other"] = {}
    assert unmatched_rows(before, after) == ["other: only in the file after"]
    assert unmatched_rows(after, before) == ["other: only in the file before"]
    assert verdicts(before, after) == {
        "distance frechet_distance_judge": "not comparable: another extractor_sha256",
        "distance floor": "not comparable: another extractor_sha256",
        "latency image (ms)": "not comparable: another device_name",
    }


def test_distances_of_other_numbers_of_samples_are_not_judged():
    before, after = results(10.0, 1.0, 100.0), results(20.0, 1.0, 100.0)
    after["records"]["student"]["distance"]["n"] = 50
    assert verdicts(before, after)["distance frechet_distance_judge"] == "not comparable: another n"


def test_the_table_shows_what_is_not_within_and_counts_what_moved():
    before, after = results(10.0, 2.0, 100.0), results(20.0, 2.0, 100.0)
    table = changes_table(compare_results(before, after))
    assert "frechet_distance_judge" in table and "latency" not in table
    assert table.splitlines()[-1].startswith("1 of 3 figures moved")


def test_files_without_a_common_row_are_refused():
    other = copy.deepcopy(results(10.0, 2.0, 100.0))
    other["records"]["teacher"] = other["records"].pop("student")
    with pytest.raises(ValueError, match="no row is in both"):
        compare_results(results(10.0, 2.0, 100.0), other)
