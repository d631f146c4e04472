"""The arena's command: answers to a table and JSON."""

import json
import math
from dataclasses import replace

import pytest

from eval.arena import main
from eval.measures.arena import measure_arena
from eval.samples.answers import Answer, keep_answer

ANSWER = Answer("teacher", "a" * 64, "student", "b" * 64, "a cat", 0, "left", "2030-01-01T00:00:00+00:00")
TURNED = Answer("student", "b" * 64, "teacher", "a" * 64, "a cat", 0, "right", "2030-01-01T00:00:00+00:00")
# the teacher is preferred twice on the left and once on the right, the student once, and once neither
ANSWERS = [ANSWER, ANSWER, TURNED, replace(ANSWER, preferred="right"), replace(TURNED, preferred="same")]


def test_sides_are_undone_and_ties_are_halves():
    result = measure_arena(ANSWERS)
    assert (result["n"], result["ties"], list(result["models"])) == (5, 1, ["teacher", "student"])
    teacher, student = result["models"].values()
    assert (teacher["games"], teacher["wins"], teacher["model_sha256"]) == (5, 3.5, "a" * 64)
    assert (student["games"], student["wins"]) == (5, 1.5)
    assert teacher["score"] - student["score"] == pytest.approx(400 * math.log10(3.5 / 1.5))
    assert teacher["low"] < teacher["score"] < teacher["high"]


def test_other_weights_of_a_name_are_a_model_of_their_own():
    result = measure_arena(
        [*ANSWERS, replace(ANSWER, left_sha256="c" * 64), replace(TURNED, preferred="left", right_sha256="c" * 64)]
    )
    assert set(result["models"]) == {"student", f"teacher ({'a' * 12})", f"teacher ({'c' * 12})"}


def test_the_command_prints_a_table_and_writes_the_result(tmp_path, capsys):
    file, output = tmp_path / "arena.sqlite", tmp_path / "arena.json"
    for one in ANSWERS:
        keep_answer(file, one)
    main(["--answers", str(file), "--json", str(output)])
    header, first, second, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "games", "wins", "score", "95", "%", "interval"]
    assert first.split()[:4] == ["teacher", "5", "3.5", "1074"] and second.split()[:4] == [
        "student",
        "5",
        "1.5",
        "926",
    ]
    assert last.startswith(
        "5 answers, 1 ties; Bradley-Terry, a tie half a win each; 400 points are odds of ten to one"
    )
    assert json.loads(output.read_text()) == {"schema": 5, "command": "eval.arena"} | measure_arena(ANSWERS)


def test_too_few_answers_are_refused_by_the_models_and_nothing_is_written(tmp_path):
    file, output = tmp_path / "arena.sqlite", tmp_path / "arena.json"
    keep_answer(file, ANSWER)
    with pytest.raises(ValueError, match="student won against none of teacher"):
        main(["--answers", str(file), "--json", str(output)])
    assert not output.exists()
