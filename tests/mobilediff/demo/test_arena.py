"""The arena: two pictures without names, an answer once, and what is kept of it."""

import json
import logging
import threading

import pytest

from eval.samples.answers import read_answers
from mobilediff.demo import environment
from mobilediff.demo.service import arena
from mobilediff.demo.service.arena import CHOICES, Arena
from mobilediff.demo.service.drawing import draw, png_uri

TWO = ["student-1step", "student-8step"]


def drawn(where: Arena, chosen: object = TWO) -> tuple[dict, str]:
    ((pair, token),) = where.draw_pair(chosen, threading.Event())
    return pair, token


def test_a_pair_names_no_model_until_it_is_answered(models, tmp_path):
    where = Arena(models, tmp_path / "arena.sqlite")
    pair, token = drawn(where)
    assert not any(name in json.dumps(pair) + token for name in models.names)
    assert [one["caption"] for one in pair["pictures"]] == ["Left", "Right"]
    shown = where.answer(token, "left")
    assert sorted(one["caption"] for one in shown["pictures"]) == TWO
    assert [one["image"] for one in shown["pictures"]] == [one["image"] for one in pair["pictures"]]


def test_what_is_kept_is_what_was_drawn(models, tmp_path):
    where = Arena(models, tmp_path / "arena.sqlite")
    pair, token = drawn(where)
    where.answer(token, "right")
    (answer,) = read_answers(where.file)
    assert {answer.left, answer.right} == set(TWO) and answer.preferred == "right"
    assert f"of {answer.prompt}?" in pair["text"]
    for name, sha256, shown in zip(
        (answer.left, answer.right), (answer.left_sha256, answer.right_sha256), pair["pictures"], strict=True
    ):
        model = models.get(name)
        again = draw(model, answer.prompt, answer.seed, 1, threading.Event())
        assert (png_uri(again.images[0]), model.sha256) == (shown["image"], sha256)


def test_each_model_is_left_at_times_and_every_two_meet(models, tmp_path):
    where = Arena(models, tmp_path / "arena.sqlite")
    names = ["student-1step", "student-1step-pruned", "student-8step"]
    for _ in range(60):  # the chance that one of six orders is missing is 6 (5/6)^60, one in 9,000
        where.answer(drawn(where, names)[1], "same")
    assert len({(one.left, one.right) for one in read_answers(where.file)}) == 6


def test_a_pair_is_answered_once_and_a_skip_is_not_kept(models, tmp_path):
    where = Arena(models, tmp_path / "arena.sqlite")
    _, token = drawn(where)
    assert where.answer(token, "skip")["text"].startswith("Skipped. Left was student-")
    assert not where.file.exists()
    for another in (token, "", None, ["a"], {}, 7):
        with pytest.raises(ValueError, match="waits for an answer; accepted is the one drawn last, once"):
            where.answer(another, "left")


def test_a_bad_answer_leaves_the_pair_to_a_good_one(models, tmp_path):
    where = Arena(models, tmp_path / "arena.sqlite")
    _, token = drawn(where)
    for bad in ("both", None, True, ["left"]):
        with pytest.raises(ValueError, match=f"accepted are {', '.join(CHOICES)}"):
            where.answer(token, bad)
    where.answer(token, "left")
    assert len(read_answers(where.file)) == 1


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["teacher"], "One model is chosen, teacher; accepted are two or more"),
        (["teacher", "teacher"], "One model is chosen, teacher; accepted are two or more"),
        ([], "No model is chosen"),
        (["teacher", "nobody"], "There is no model 'nobody'"),
        ("teacher", "models are 'teacher'; accepted is a list of names"),
    ],
)
def test_models_that_make_no_pair_are_refused_by_name(models, chosen, message):
    with pytest.raises(ValueError, match=message):
        drawn(Arena(models, None), chosen)


def test_a_cancelled_pair_is_not_held(models):
    where, cancelled = Arena(models, None), threading.Event()
    cancelled.set()
    assert list(where.draw_pair(TWO, cancelled)) == [] and where._pairs == {}


def test_a_model_that_fails_makes_no_pair(models, monkeypatch):
    unet = models.get("student-1step").pipeline.unet
    monkeypatch.setattr(unet, "forward", lambda *args, **_: (args[0] * float("nan"),))
    where = Arena(models, None)
    with pytest.raises(ValueError, match="^student-1step: "):
        drawn(where)
    assert where._pairs == {}


def test_the_oldest_pairs_go(models, monkeypatch):
    monkeypatch.setattr(arena, "MAX_PAIRS", 2)
    where = Arena(models, None)
    tokens = [drawn(where)[1] for _ in range(3)]
    with pytest.raises(ValueError, match="waits for an answer"):
        where.answer(tokens[0], "left")
    for token in tokens[1:]:
        where.answer(token, "left")


def test_a_file_of_something_else_keeps_nothing_and_the_log_says_why(models, tmp_path, caplog):
    (tmp_path / "notes.txt").write_text("mine" * 1000)
    where = Arena(models, tmp_path / "notes.txt")
    assert where.file is None and "notes.txt is no file of answers" in caplog.text
    where.answer(drawn(where)[1], "left")
    assert (tmp_path / "notes.txt").read_text() == "mine" * 1000


def test_a_place_that_cannot_be_written_keeps_nothing(models, caplog):
    assert Arena(models, environment.Path("/proc/arena/arena.sqlite")).file is None
    assert "answers are not kept: /proc/arena/arena.sqlite cannot be written" in caplog.text


def test_an_answer_that_is_lost_is_told(models, tmp_path, caplog):
    where = Arena(models, tmp_path / "arena.sqlite")
    _, token = drawn(where)
    (tmp_path / "arena.sqlite").mkdir()  # meanwhile
    with caplog.at_level(logging.ERROR):
        text = where.answer(token, "left")["text"]
    assert text.endswith("It could not be kept; the log of the app says why.") and str(tmp_path) not in text
    assert "an answer is lost" in caplog.text


def test_the_file_of_the_environment(monkeypatch, tmp_path):
    for variable in ("MOBILEDIFF_ANSWERS", "SPACE_ID"):
        monkeypatch.delenv(variable, raising=False)
    assert environment.answers_file() == environment.ROOT / "outputs" / "arena.sqlite"
    monkeypatch.setenv("SPACE_ID", "someone/mobilediff")
    assert environment.answers_file() is None
    monkeypatch.setenv("MOBILEDIFF_ANSWERS", str(tmp_path / "kept.sqlite"))
    assert environment.answers_file() == tmp_path / "kept.sqlite"
