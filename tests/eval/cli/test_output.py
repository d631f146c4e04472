"""Files for results: tried before any work, and a result that cannot be written is printed first."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

import eval.cli.show
from eval.accuracy import main as accuracy
from eval.cli.output import check_picture_output, write_picture
from eval.cli.show import show_result
from eval.guidance import main as guidance
from eval.latency import main as latency
from eval.reconstruction import main as reconstruction
from eval.retrieval import main as retrieval
from eval.samples.store import generate
from mobilediff.files import read_json
from tests.eval.cli.test_show import RESULT
from tests.eval.stand_ins import NoisePipeline, noise_settings

COMMANDS = {
    accuracy: ["--model", "nowhere"],
    guidance: ["--model", "nowhere"],
    latency: ["--model", "nowhere"],
    reconstruction: ["--vae", "nowhere"],
    retrieval: [],
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__module__)
def test_a_result_that_cannot_be_written_is_refused_before_any_work(command, tmp_path, capsys):
    (tmp_path / "protected").write_text("{}")
    (tmp_path / "protected").chmod(0o444)
    os.mkfifo(tmp_path / "pipe")
    for name, named in (("", "is a folder"), ("protected", "write-protected"), ("pipe", "a device or a pipe")):
        with pytest.raises(OSError, match=named):
            command([*COMMANDS[command], "--json", str(tmp_path / name)])
    with pytest.raises(SystemExit):
        command([*COMMANDS[command], "--json", ""])
    assert "argument --json: it is empty" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "npz", "text"])
def test_a_file_that_is_no_result_is_kept(tmp_path, capsys, kind):
    output = tmp_path / ("set.npz" if kind == "npz" else "set")
    file = {"folder": output / "manifest.json", "npz": output.with_suffix(".json"), "text": tmp_path / "notes"}[kind]
    generate(NoisePipeline(), noise_settings(), output, 10, 10)
    if kind == "text":
        file.write_text("mine")
    before = file.read_bytes()
    with pytest.raises(SystemExit):
        accuracy(["--images", str(output), "--json", str(file)])
    assert "holds something else than a result and is kept" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_an_older_result_is_replaced(tmp_path):
    file = tmp_path / "result.json"
    for n in (2000, 1000):
        show_result("eval.accuracy", RESULT | {"n": n}, str(file))
        assert read_json(file)["n"] == n


def test_figures_are_printed_before_they_are_written(tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError("no space left on device")

    monkeypatch.setattr(eval.cli.show, "write_json", full)
    with pytest.raises(OSError, match="no space left"):
        show_result("eval.accuracy", RESULT, str(tmp_path / "result.json"))
    assert "class accuracy" in capsys.readouterr().out


def test_a_result_is_valid_json_or_not_written(tmp_path):
    broken = json.loads(json.dumps(RESULT)) | {"class_accuracy": float("nan")}
    with pytest.raises(ValueError, match="class_accuracy"):
        show_result("eval.accuracy", broken, str(tmp_path / "result.json"))
    assert not list(tmp_path.iterdir())


def test_a_picture_is_enlarged_without_smoothing(tmp_path):
    image = torch.randint(256, (3, 2, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_picture(tmp_path / "picture.png", image)
    with Image.open(tmp_path / "picture.png") as written:
        pixels = torch.from_numpy(np.array(written)).permute(2, 0, 1)
    assert torch.equal(pixels, image.repeat_interleave(4, 1).repeat_interleave(4, 2))


def test_a_picture_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name, named in (("folder.png", "is a folder"), ("a.jpg", "accepted is a file that ends in .png")):
        with pytest.raises((OSError, ValueError), match=named):
            check_picture_output("--plot", tmp_path / name)
        with pytest.raises((OSError, ValueError), match=named):
            guidance(["--model", "nowhere", "--plot", str(tmp_path / name)])
