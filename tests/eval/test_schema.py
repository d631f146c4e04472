"""Models of the results: shipped files fit them, bent ones are refused by their place, the schema file is theirs."""

import copy
import json
from pathlib import Path

import pytest

from eval.schema import SCHEMA_FILE, check_results, json_schema, read_results, write_results

SHIPPED = Path(__file__).parents[2] / "docs" / "results.json"


def test_the_shipped_results_fit_and_survive_a_round_trip(tmp_path):
    results = read_results(SHIPPED)
    assert {"teacher", "student-1step"} <= set(results.records)
    write_results(tmp_path / "results.json", results.dump())
    assert read_results(tmp_path / "results.json") == results
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(SHIPPED.read_text())


def test_the_results_of_the_ablation_fit():
    assert "0-stock" in read_results(SHIPPED.parent / "ablation" / "results.json").records


def test_the_schema_file_is_made_from_the_models():
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == json_schema()  # else: python -m eval.schema


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
        ("schema", 4, "schema: Input should be 5"),
        ("records", None, "records: Field required"),
        ("records/teacher/frechet_distance/class_accuracy", 82.7, "records/teacher/frechet_distance/class_accuracy"),
        ("records/teacher/frechet_distance/protocol/extractor_sha256", "abc", "extractor_sha256"),
        ("records/teacher/frechet_distance/samples/seed", None, "samples of a model lack seed"),
        ("records/teacher/latency/image/median_ms", 0, "records/teacher/latency/image/median_ms"),
        ("records/teacher/latency/image", None, "latency lacks image"),
        ("records/teacher/speed", {}, "records/teacher: Value error, 'speed' is no section"),
        ("records/teacher/frechet_distance other", {}, "records/teacher/frechet_distance other"),
        ("records/teacher/size/paramz", 1, "records/teacher/size/paramz"),
    ],
)
def test_bent_results_are_refused_by_their_place(place, value, named, tmp_path):
    bent = bend(json.loads(SHIPPED.read_text(encoding="utf-8")), place, value)
    with pytest.raises(ValueError, match=named):
        check_results(bent, "bent")
    with pytest.raises(ValueError, match=named):
        write_results(tmp_path / "results.json", bent)
    assert not (tmp_path / "results.json").exists()
