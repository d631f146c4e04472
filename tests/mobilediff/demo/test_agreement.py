"""Figures are compared with shipped ones where the comparison is fair, and the sentence says where it is not."""

import copy
import json
from pathlib import Path

import pytest

from eval.schema import check_results
from mobilediff.demo.service.agreement import NO_RECORD, agreement, shipped_record
from mobilediff.demo.service.reported import reported_records

FILE = Path(__file__).parents[3] / "docs" / "results.json"
CONTENT = json.loads(FILE.read_text(encoding="utf-8"))["records"]["student-1step"]
RECORD = reported_records(FILE)["student-1step"]


def result(command: str, section: str, **changes) -> dict:
    """The shipped section as a command's result, with other figures."""
    content = copy.deepcopy(CONTENT[section]) | changes
    content.pop("copies", None)
    return {"schema": 5, "command": command} | content


def test_equal_figures_agree():
    (sentence, *others) = agreement(RECORD, "student-1step", [result("eval.fid", "frechet_distance")])
    assert sentence.startswith(
        "Agrees with the shipped figures within the intervals: "
        f"Fréchet distance ({CONTENT['frechet_distance']['frechet_distance_judge']:.4g}, shipped"
    )
    assert "class accuracy" in sentence and not others


def test_a_figure_apart_from_the_shipped_one_differs():
    intervals = {"clip_score": {"low": 49.0, "high": 51.0, "confidence": 0.95, "resamples": 1000}}
    sentences = agreement(RECORD, "x", [result("eval.clip_score", "clip", clip_score=50.0, intervals=intervals)])
    shipped = f"{CONTENT['clip']['clip_score']:.4g}"
    assert sentences == [f"Differs from the shipped figures beyond the intervals: CLIP score (50, shipped {shipped})."]


def test_distances_of_fewer_samples_are_not_compared_but_accuracies_are():
    results = [result("eval.fid", "frechet_distance", n=500), result("eval.quality", "quality", n=500)]
    agrees, not_compared = agreement(RECORD, "x", results)
    assert "class accuracy" in agrees and "distance" not in agrees
    assert not_compared.startswith("Not compared, as they depend on the number of samples")
    assert all(
        name in not_compared for name in ("Fréchet distance", "precision", "recall", "coverage", "seed distance")
    )


@pytest.mark.parametrize(
    ("prompts", "section", "key", "figure"),
    [
        ("class", "frechet_distance", "class_accuracy", "class accuracy"),
        ("noun", "nouns", "noun_top1", "noun accuracy, top 1"),
    ],
)
def test_accuracies_are_compared_with_those_of_the_same_prompts(prompts, section, key, figure):
    content = result("eval.accuracy", "nouns")
    content["samples"]["prompts"] = prompts
    (sentence,) = agreement(RECORD, "x", [content])
    assert (f"{figure} ({content[key]:.4g}, shipped {CONTENT[section][key]:.4g})") in sentence
    assert ("noun accuracy" in sentence) != ("class accuracy" in sentence)


def test_another_judge_is_not_compared():
    content = result("eval.fid", "frechet_distance")
    content["protocol"]["extractor_sha256"] = "b" * 64
    (sentence,) = agreement(RECORD, "x", [content])
    assert sentence.startswith("Not compared, because of another extractor sha256: Fréchet distance, class accuracy")


def test_times_of_another_machine_are_not_compared():
    latency = {key: value for key, value in CONTENT["latency"].items() if key not in ("times_faster", "baseline")}
    protocol = latency.pop("protocol")
    size = CONTENT["size"] | {"weights": "checkpoint", "weights_memory_bytes": 1}
    content = {"schema": 5, "command": "eval.latency", "models": {"x": size}}
    here = content | {"batches": [{"models": {"x": latency}, "protocol": protocol}]}
    assert agreement(RECORD, "x", [here])[0].startswith("Agrees with the shipped figures within the intervals: ms an")
    there = content | {"batches": [{"models": {"x": latency}, "protocol": protocol | {"device_name": "another"}}]}
    assert agreement(RECORD, "x", [there]) == ["Not compared, because of another device name: ms an image."]


def test_records_are_found_by_the_hash_of_the_weights():
    records = check_results({"schema": 5, "records": {"student-1step": CONTENT}}, "results").records
    assert shipped_record(records, ["a" * 64, CONTENT["model_sha256"]]) == records["student-1step"]
    assert shipped_record(records, [None, "a" * 64]) is None
    assert agreement(None, "x", []) == [NO_RECORD]
