"""The schema of the results: what the project ships fits it, and what is bent is refused by its place."""

import copy
import json
from pathlib import Path

import pytest

from eval.schema import check_results, read_results, write_results

SHIPPED = Path(__file__).parents[2] / "docs" / "results.json"


def test_the_shipped_results_fit_and_survive_a_round_trip(tmp_path):
    results = read_results(SHIPPED)
    assert {"teacher", "student-1step"} <= set(results["records"])
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def bend(results: dict, place: str, value) -> dict:
    """A copy with the entry at `place` ("a/b/c") replaced, or taken out where `value` is None."""
    bent = copy.deepcopy(results)
    *path, last = place.split("/")
    entry = bent
    for key in path:
        entry = entry[key]
    if value is None:
        del entry[last]
    else:
        entry[last] = value
    return bent


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("schema", 1, "schema: 4 was expected"),
        ("records", None, "'records' is a required property"),
        ("records/teacher/distance/class_accuracy", 82.7, "records/teacher/distance/class_accuracy"),
        ("records/teacher/distance/protocol/extractor_sha256", "abc", "extractor_sha256"),
        ("records/teacher/distance/samples/seed", None, "'seed' is a required property"),
        ("records/teacher/latency/image/median_ms", 0, "records/teacher/latency/image/median_ms"),
        ("records/teacher/speed", {}, "'speed' does not match any of the regexes"),
    ],
)
def test_bent_results_are_refused_by_their_place(place, value, named, tmp_path):
    bent = bend(json.loads(SHIPPED.read_text(encoding="utf-8")), place, value)
    with pytest.raises(ValueError, match=named):
        check_results(bent, "bent")
    with pytest.raises(ValueError, match=named):
        write_results(tmp_path / "results.json", bent)
    assert not (tmp_path / "results.json").exists()
