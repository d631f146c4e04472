"""What a command prints and writes of its result: a table of figures, JSON that fits the schema or nothing."""

import json

import pytest

from eval.cli.show import figures_table, show_result

RESULT = {
    "class_accuracy": 0.5,
    "class_accuracy_by_class": {"bird": 0.25},
    "n": 2000,
    "intervals": {"class_accuracy": {"low": 0.4, "high": 0.6, "confidence": 0.95, "resamples": 100}},
    "protocol": {
        "extractor": "judge",
        "extractor_sha256": "b" * 64,
        "resize": "none",
        "device": "cpu",
        "device_name": "one",
        "threads": 2,
        "versions": {"torch": "2"},
    },
    "samples": {"n": 2000, "images_sha256": "a" * 64},
}


def test_the_table_has_a_line_a_figure_with_its_interval():
    lines = figures_table(RESULT).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["figure", "class accuracy", "class accuracy by class bird", "n"]
    assert lines[1].endswith("0.5000  0.4000 to 0.6000") and lines[3].split() == ["n", "2,000"]
    assert "sets" not in lines[0]


def test_several_sets_have_a_column_of_their_mean_and_spread():
    repeats = {"seeds": [0, 2000, 4000], "class_accuracy": {"values": [0.5, 0.6, 0.4], "mean": 0.5, "std": 0.1}}
    header, first, *_ = figures_table(RESULT | {"repeats": repeats}).splitlines()
    assert header.endswith("3 sets: mean, std") and first.endswith("0.5000, 0.1000")


def test_what_is_printed_says_with_what_it_was_measured(tmp_path, capsys):
    show_result("eval.accuracy", RESULT, str(tmp_path / "result.json"))
    printed = capsys.readouterr().out
    assert "samples: n 2000; images_sha256 aaaaaaaaaaaa\n" in printed and "versions torch 2" in printed
    written = json.loads((tmp_path / "result.json").read_text())
    assert written == RESULT | {"schema": 5, "command": "eval.accuracy"}


def test_lists_are_left_out_of_the_table():
    assert "edges" not in figures_table(RESULT | {"histogram": {"edges": [0.0, 1.0]}})


def test_a_result_that_lacks_its_protocol_is_not_written(tmp_path):
    lacking = RESULT | {"protocol": {"device": "cpu"}}
    with pytest.raises(ValueError, match="eval.accuracy has no such result: .*protocol/device_name: Field required"):
        show_result("eval.accuracy", lacking, str(tmp_path / "result.json"))
    with pytest.raises(ValueError, match="eval.speed has no such result: .*'eval.speed' found using 'command'"):
        show_result("eval.speed", RESULT, str(tmp_path / "result.json"))
    assert not list(tmp_path.iterdir())
