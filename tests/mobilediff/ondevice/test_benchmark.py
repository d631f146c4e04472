"""The benchmark of exports: options and output tried before work, and a result of quiet and busy times."""

import os
from pathlib import Path

import pytest

from eval.protocol import folder_sha256
from mobilediff.files import read_json
from mobilediff.ondevice import benchmark, export
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A checkpoint and its export."""
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="the extra ondevice is not installed: pip install '.[ondevice]'")
    root = tmp_path_factory.mktemp("benchmark")
    tiny_checkpoint(root / "student", "student-1step")
    export.main(["--model", str(root / "student"), "--format", "onnx", "--output", str(root / "onnx")])
    return root


def test_a_result_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "protected").write_text("{}")
    (tmp_path / "protected").chmod(0o444)
    os.mkfifo(tmp_path / "pipe")
    for name, named in (("", "is a folder"), ("protected", "write-protected"), ("pipe", "a device or a pipe")):
        with pytest.raises(OSError, match=named):
            benchmark.main(["--exported", "nowhere", "--json", str(tmp_path / name)])


@pytest.mark.parametrize("option", ["threads 0", "rounds 2", "max-seconds 0"])
def test_an_option_out_of_range_is_refused_before_any_work(option):
    name, value = option.split()
    with pytest.raises(ValueError, match=f"{name.replace('-', '_')} is {value}.*; accepted is"):
        benchmark.main(["--exported", "nowhere", f"--{name}", value])


def test_two_folders_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="have one name"):
        benchmark.main(["--exported", str(tmp_path / "a" / "onnx"), str(tmp_path / "b" / "onnx")])


def test_quiet_and_busy_times_are_printed_and_written_and_replace_an_older_result(root, tmp_path, capsys):
    file = tmp_path / "benchmark.json"
    command = ["--exported", str(root / "onnx"), "--rounds", "3", "--threads", "1", "--json", str(file)]
    benchmark.main(command)
    assert set(read_json(file)) == {"command", "quiet", "protocol"}
    benchmark.main([*command, "--beside", str(root / "student"), "--busy"])
    result = read_json(file)
    for name in ("quiet", "busy"):
        assert {key: times["runs"] for key, times in result[name].items()} == {"onnx": 3, "PyTorch": 3}
    assert result["protocol"]["exported"]["onnx"]["precision"] == "fp32"
    assert result["protocol"]["beside"] == {"model": "student", "model_sha256": folder_sha256(root / "student")}
    assert "x PyTorch" in capsys.readouterr().out


def test_times_are_printed_before_they_are_written(root, tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError("no space left on device")

    monkeypatch.setattr(benchmark, "write_json", full)
    command = ["--exported", str(root / "onnx"), "--rounds", "3", "--threads", "1"]
    with pytest.raises(OSError, match="no space left"):
        benchmark.main([*command, "--json", str(tmp_path / "benchmark.json")])
    assert "median ms" in capsys.readouterr().out
