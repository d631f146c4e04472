"""Samples of an exported folder: those of its checkpoint, with its origin in the protocol, or refused before work."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from eval.generate import main as generate
from eval.grid import main as grid
from eval.latency import main as latency
from eval.protocol import file_sha256, folder_sha256
from eval.samples.images import read_images
from mobilediff.files import read_json
from mobilediff.ondevice import export
from tests.tiny import tiny_checkpoint

OPTIONS = [
    "--steps 1",
    "--guidance-scale 1",
    "--interval 0 1",
    "--scheduler DDIMScheduler",
    "--dtype bf16",
    "--compile",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A checkpoint and its export."""
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="the extra ondevice is not installed: pip install '.[ondevice]'")
    root = tmp_path_factory.mktemp("exported")
    tiny_checkpoint(root / "student", "student-1step")
    export.main(["--model", str(root / "student"), "--format", "onnx", "--output", str(root / "onnx")])
    return root


def test_samples_are_the_checkpoints(root, tmp_path):
    for name in ("student", "onnx"):
        options = ["--n", "5", "--batch-size", "2", "--prompts", "noun", "--seed", "3"]
        generate(["--model", str(root / name), "--output", str(tmp_path / f"{name}.npz"), *options])
    expected, found = (read_images(tmp_path / f"{name}.npz") for name in ("student", "onnx"))
    assert found.prompts == expected.prompts
    difference = np.abs(found.images.numpy().astype(int) - expected.images.numpy().astype(int))
    assert difference.max() <= 1 and expected.images.float().std() > 10


def test_the_protocol_names_checkpoint_and_files(root, tmp_path):
    generate(["--model", str(root / "onnx"), "--output", str(tmp_path / "samples"), "--n", "2"])
    protocol = read_json(tmp_path / "samples" / "manifest.json")
    assert protocol["checkpoint"] == "student"
    assert protocol["checkpoint_sha256"] == folder_sha256(root / "student")
    assert protocol["files"]["image.onnx"] == file_sha256(root / "onnx" / "image.onnx")
    assert (protocol["format"], protocol["precision"], protocol["nfe"]) == ("onnx", "fp32", 1)
    assert "onnxruntime" in protocol["versions"] and protocol["device"] == "cpu"


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_the_graphs_fix_are_refused(option, tmp_path):
    folder, output = tmp_path / "onnx", tmp_path / "samples"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=f"^{option.split()[0]} is an option of a checkpoint; .* is an export"):
        generate(["--model", str(folder), "--output", str(output), *option.split()])
    assert not output.exists()


def test_a_truncated_export_is_refused_before_work(root, tmp_path):
    folder = Path(shutil.copytree(root / "onnx", tmp_path / "onnx"))
    file = folder / "text_encoder.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="text_encoder.onnx has .* bytes"):
        generate(["--model", str(folder), "--output", str(tmp_path / "samples"), "--n", "2"])
    assert not (tmp_path / "samples").exists()


def test_a_grid_takes_exports_beside_checkpoints(root, tmp_path):
    models = [str(root / "onnx"), str(root / "student")]
    grid(["--model", *models, "--output", str(tmp_path / "grid.png"), "--seeds", "0", "--no-labels"])
    assert (tmp_path / "grid.png").is_file()
    with pytest.raises(ValueError, match="^--steps is an option of a checkpoint"):
        grid(["--model", *models, "--output", str(tmp_path / "grid.png"), "--steps", "1"])


def test_latency_times_the_parts_of_an_export_beside_its_checkpoint(root, tmp_path, capsys):
    options = ["--rounds", "3", "--threads", "1", "--batch-sizes", "1", "2", "--baseline", "student"]
    models = [str(root / "onnx"), str(root / "student")]
    latency(["--model", *models, *options, "--json", str(tmp_path / "latency.json")])
    result = read_json(tmp_path / "latency.json")
    size = result["models"]["onnx"]
    assert size["weights"] == "exported" and size["checkpoint_sha256"] == folder_sha256(root / "student")
    assert size["download_bytes"] == sum(
        file.stat().st_size
        for file in (root / "onnx").rglob("*")
        if file.is_file() and file.name not in ("manifest.json", "README.md")
    )
    for batch in result["batches"]:
        assert set(batch["models"]["onnx"]) == {"text_encoder", "image"}
        assert set(batch["times_faster"]) == {"onnx", "student"}
    assert "onnx" in capsys.readouterr().out
