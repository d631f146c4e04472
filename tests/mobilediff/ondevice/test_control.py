"""A control checkpoint exported to ONNX: steered as by PyTorch, or refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.samples.pipelines import load_sampler
from mobilediff.export import export_pipeline
from mobilediff.files import read_json, write_json
from mobilediff.ondevice import export, parity
from mobilediff.ondevice.benchmark import image_calls
from mobilediff.ondevice.calibration import calibration_inputs
from mobilediff.ondevice.difference import ACCEPTED
from mobilediff.ondevice.exported import load_exported
from mobilediff.ondevice.folder import write_exported
from mobilediff.ondevice.graphs import build_graphs, schedule
from mobilediff.ondevice.manifest import read_manifest
from tests.tiny import tiny_checkpoint, tiny_control

for library in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(library, reason="the extra ondevice is not installed: pip install '.[ondevice]'")

PROMPTS = ["a ship", "a photo of a cat", "a deer"]
SKETCH = Image.fromarray(np.eye(32, dtype=np.uint8) * 255)
COLORS = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A control checkpoint and its export."""
    root = tmp_path_factory.mktemp("control")
    checkpoint = str(export_pipeline(tiny_control(), root / "checkpoint"))
    options = ["--format", "onnx", "--precision", "fp32", "--output", str(root / "fp32")]
    export.main(["--model", checkpoint, *options])
    return root


def draw(pipeline, **arguments) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    return pipeline(PROMPTS, generator=generators, output_type="np", **arguments).images


@pytest.mark.parametrize(
    "arguments",
    [
        {"image": SKETCH, "color_map": COLORS},
        {"image": SKETCH},
        {"color_map": COLORS},
        {"image": [SKETCH, Image.new("L", (32, 32)), SKETCH.rotate(90)], "controlnet_conditioning_scale": 0.5},
        {"image": SKETCH, "controlnet_conditioning_scale": 0},
    ],
)
def test_pictures_are_the_pipelines(root, arguments):
    expected = draw(load_sampler(root / "checkpoint"), **arguments)
    np.testing.assert_allclose(draw(load_exported(root / "fp32", 1), **arguments), expected, atol=ACCEPTED["fp32"] / 2)


def test_the_manifest_states_the_further_inputs_and_the_parity_under_control(root, capsys):
    manifest = read_manifest(root / "fp32")
    shapes = {one.name: one.shape for one in manifest.graph("image").inputs}
    assert manifest.controlled
    assert shapes["controlnet_cond"] == [1, 6, 32, 32] and shapes["conditioning_scale"] == [1]
    assert manifest.parity.largest < ACCEPTED["fp32"]
    parity.main(["--model", str(root / "checkpoint"), "--exported", str(root / "fp32"), "--images", "4"])
    assert "largest with noun table" in capsys.readouterr().out
    assert "controlnet_cond, conditioning_scale });" in (root / "fp32" / "README.md").read_text(encoding="utf-8")


def test_a_quantiser_sees_every_kind_of_condition(monkeypatch):
    monkeypatch.setattr("mobilediff.ondevice.calibration.BATCHES", 3)
    pipeline = tiny_control()
    steps = schedule(pipeline, 1)
    inputs = calibration_inputs(pipeline, build_graphs(pipeline, steps, 1), steps, fused=True)["image"]
    given = [one["controlnet_cond"][0, 4:, 0, 0].tolist() for one in inputs]
    assert given == [[1, 1], [1, 0], [0, 1]]
    assert all(one["controlnet_cond"].any() and one["conditioning_scale"] == 1 for one in inputs)
    assert list(inputs[0]) == ["noise", "hidden_states", "pooled", "controlnet_cond", "conditioning_scale"]


def test_it_is_timed_beside_pytorch(root):
    for call in image_calls([str(root / "fp32")], str(root / "checkpoint"), threads=1).values():
        assert call().images.shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "image and color_map are None"),
        ({"image": SKETCH.resize((16, 16))}, "image has 1 channels of 16 x 16; accepted: .* 32 x 32"),
        ({"image": [SKETCH] * 2}, "image or color_map holds 2, accepted: one, or one for each of 3 prompts"),
        ({"image": SKETCH, "controlnet_conditioning_scale": float("nan")}, "controlnet_conditioning_scale is nan"),
    ],
)
def test_bad_conditions_are_refused(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(load_exported(root / "fp32", 1), **arguments)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A checkpoint without control, and its export."""
    root = tmp_path_factory.mktemp("plain")
    tiny_checkpoint(root / "checkpoint", "student-1step")
    export.main(["--model", str(root / "checkpoint"), "--format", "onnx", "--output", str(root / "onnx")])
    return root


def test_a_sketch_for_an_export_without_control_is_refused(plain):
    assert not read_manifest(plain / "onnx").controlled
    with pytest.raises(ValueError, match="image or color_map is given; checkpoint has no control network"):
        draw(load_exported(plain / "onnx", 1), image=SKETCH)


def without_scale(inputs):
    inputs.pop()


def with_edges_first(inputs):
    inputs.reverse()


@pytest.mark.parametrize("change", [without_scale, with_edges_first])
def test_a_manifest_with_part_of_the_further_inputs_is_refused(root, tmp_path, change):
    content = read_json(root / "fp32" / "manifest.json")
    change(content["graphs"][1]["inputs"])
    write_json(tmp_path / "manifest.json", content)
    with pytest.raises(ValueError, match=r"accepted are noise \(float32\), .*, or noise .*controlnet_cond"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("kind", "format", "message"),
    [("student-1step", "litert", "format is 'litert'"), ("student-8step", "onnx", "scheduler is DistilledDDIM")],
)
def test_what_cannot_be_exported_is_refused_before_any_work(tmp_path, monkeypatch, kind, format, message):
    monkeypatch.setattr("mobilediff.ondevice.folder.check_precision", lambda *_: None)  # of a library that may lack
    monkeypatch.setattr("mobilediff.ondevice.folder.load_format", lambda _: pytest.fail("it was converted"))
    with pytest.raises(ValueError, match=message):
        write_exported(tiny_control(kind), "tiny", "0" * 64, tmp_path / "out", format, "fp32")
    assert not list(tmp_path.iterdir())
