"""A comparison says how fast and how good each model is, for the settings of this very call alone."""

import threading

import pytest

from eval.protocol import folder_sha256
from mobilediff.checkpoints import text_to_image_names
from mobilediff.demo.environment import RESULTS, ROOT
from mobilediff.demo.service.comparison import add_quality, add_speeds, compare
from mobilediff.demo.service.reported import reported_qualities, reported_records
from mobilediff.demo.service.settings import Settings, check_settings

ALL = ["student-1step", "student-8step", "student", "teacher"]


def drawn(models, names, settings=None) -> dict[str, dict]:
    options = {} if settings is None else {"settings": settings}
    *_, (records, _) = compare(models, names, "a fire truck", 0, 1, threading.Event(), **options)
    return {record["name"]: record for record in records}


def test_each_card_says_how_fast_it_was_beside_the_teacher_of_the_same_call(models):
    records = drawn(models, ALL)
    for name in ALL[:-1]:
        ratio = records["teacher"]["latency_ms"] / records[name]["latency_ms"]
        assert records[name]["times_faster"] == ratio
        figure = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"
        assert records[name]["speed"] == f"{figure} times as fast as the teacher"
    assert "speed" not in records["teacher"]


def test_without_the_teacher_no_card_says_how_fast(models):
    assert "speed" not in drawn(models, ["student-1step"])["student-1step"]


def test_a_teacher_that_failed_is_no_measure(models, monkeypatch):
    monkeypatch.setattr(models.get("teacher").pipeline.unet, "forward", lambda *args, **_: (args[0] * float("nan"),))
    records = drawn(models, ["student-1step", "teacher"])
    assert (records["teacher"]["status"], "speed" in records["student-1step"]) == ("failed", False)


def test_a_slower_model_is_not_called_faster():
    records = [
        {"name": "slow", "status": "done", "latency_ms": 200.0},
        {"name": "failed", "status": "failed", "latency_ms": None},
        {"name": "teacher", "status": "done", "latency_ms": 50.0},
    ]
    add_speeds(records)
    assert records[0]["speed"] == "0.2 times as fast as the teacher"
    assert "speed" not in records[1]


def test_settings_reach_the_models_that_take_them(models):
    records = drawn(models, ALL, Settings(4, 25, 5.0))
    assert [records[name]["options"] for name in ALL] == [
        {"num_inference_steps": 4},
        {},
        {"num_inference_steps": 25, "guidance_scale": 5.0},
        {"num_inference_steps": 25, "guidance_scale": 5.0},
    ]
    assert [records[name]["nfe"] for name in ALL] == [4, 8, 50, 50]
    own = drawn(models, ALL)
    changed = {name: records[name]["images"] != own[name]["images"] for name in ALL}
    assert changed == {"student-1step": True, "student-8step": False, "student": True, "teacher": True}


def test_a_models_own_settings_are_no_change(models):
    assert all(Settings(1, 50, 3.0).options(models.get(name)) == {} for name in ALL)


def test_no_guidance_halves_the_network_calls(models):
    records = drawn(models, ["student"], Settings(guidance=1.0))
    assert records["student"]["nfe"] == 50


def test_steps_that_a_model_was_not_distilled_for_are_refused_by_name_before_any_work(models, monkeypatch):
    scheduler = models.get("student-1step").pipeline.scheduler
    monkeypatch.setattr(scheduler, "_internal_dict", {**scheduler.config, "distilled_num_inference_steps": [1, 2]})
    with pytest.raises(ValueError, match="number of steps is 4; student-1step accepts 1, 2"):
        next(compare(models, ALL, "a cat", 0, 1, threading.Event(), settings=Settings(few_steps=4)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((3, "own", None), "one-step students is 3; accepted are own, 1, 2, 4"),
        ((True, "own", None), "one-step students is True"),
        (("1", "own", None), "one-step students is '1'"),
        ((None, "own", None), "one-step students is None"),
        ((float("nan"), "own", None), "one-step students is nan"),
        (("own", 10**400, None), "teacher and student is 1000"),
        (("own", [25], None), r"teacher and student is \[25\]; accepted are own, 25, 50"),
        (("own", "own", -1), "guidance is -1; accepted is a number from 0 to 10, or none"),
        (("own", "own", float("nan")), "guidance is nan"),
        (("own", "own", float("inf")), "guidance is inf"),
        (("own", "own", "2"), "guidance is '2'"),
        (("own", "own", True), "guidance is True"),
    ],
)
def test_bad_settings_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        check_settings(*values)
    assert check_settings(1.0, 25, 2) == Settings(1, 25, 2.0)


def test_quality_is_that_of_the_same_weights_and_settings():
    quality = {"a" * 64: ["Fréchet distance 4.35"]}
    records = [
        {"name": "student", "model_sha256": "a" * 64, "options": {}},
        {"name": "student", "model_sha256": "b" * 64, "options": {}},  # a name alone says nothing
        {"name": "student", "model_sha256": "a" * 64, "options": {"num_inference_steps": 50}},
        {"name": "loading", "figures": []},
    ]
    add_quality(records, quality)
    assert [record.get("quality") for record in records] == [["Fréchet distance 4.35"], [], None, []]


def test_the_reports_file_names_the_shipped_checkpoints():
    qualities = reported_qualities(reported_records(RESULTS))
    for name in text_to_image_names(ROOT / "checkpoints"):
        distance, accuracy = qualities[folder_sha256(ROOT / "checkpoints" / name)]
        assert distance.startswith("Fréchet distance ") and accuracy.startswith("class accuracy ")
