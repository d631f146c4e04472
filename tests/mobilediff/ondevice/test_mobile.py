"""Folders exported to LiteRT and ExecuTorch: equal to PyTorch, and their operators counted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from eval.samples.pipelines import load_sampler
from mobilediff.ondevice import export, parity
from mobilediff.ondevice.difference import ACCEPTED
from mobilediff.ondevice.exported import load_exported
from mobilediff.ondevice.formats import load_format
from mobilediff.ondevice.graphs import Graph
from mobilediff.ondevice.manifest import read_manifest
from tests import tiny

pytestmark = pytest.mark.slow

# An operator that each graph is known to have, as the runtime names it.
FORMATS = {"executorch": "XnnpackBackend", "litert": "CONV_2D"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny.tiny_checkpoint(tmp_path_factory.mktemp("mobile") / "student-1step", "student-1step")


@pytest.fixture(scope="module", params=FORMATS)
def folder(request, checkpoint) -> Path:
    """The checkpoint's export to a format."""
    try:
        load_format(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    folder = checkpoint.parent / request.param
    export.main(["--model", str(checkpoint), "--format", request.param, "--output", str(folder)])
    return folder


def test_pictures_are_the_pipelines(folder, checkpoint):
    prompts = ["a photo of a cat", "a ship", "a deer"]
    generators = [[torch.Generator().manual_seed(seed) for seed in range(3)] for _ in range(2)]
    expected = load_sampler(checkpoint)(prompts, generator=generators[0], output_type="np").images
    images = load_exported(folder, threads=1)(prompts, generators[1]).images
    np.testing.assert_allclose(images, expected, atol=ACCEPTED["fp32"] / 2)
    parity.main(["--model", str(checkpoint), "--exported", str(folder), "--images", "2", "--threads", "1"])


def test_the_manifest_counts_the_operators(folder):
    manifest = read_manifest(folder)
    operators = manifest.graph("image").operators
    assert operators[FORMATS[manifest.format]] > 3
    assert manifest.parity.largest < ACCEPTED["fp32"]
    assert set(manifest.versions) == set(load_format(manifest.format).LIBRARIES)


@pytest.fixture(scope="module")
def wider(tmp_path_factory) -> Path:
    """A checkpoint whose matrices of text have the 32 columns that share a scale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "HIDDEN_SIZE", 32)
        return tiny.tiny_checkpoint(tmp_path_factory.mktemp("wider") / "student-1step", "student-1step")


@pytest.fixture(scope="module", params=["litert"])
def quantized(request, wider) -> Path:
    """That checkpoint's export to a format in int8."""
    try:
        load_format(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    folder = wider.parent / request.param
    options = ["--format", request.param, "--precision", "int8", "--output", str(folder)]
    export.main(["--model", str(wider), *options])
    return folder


def test_quantised_pictures_are_nearest_to_the_pipelines(quantized, wider):
    prompts = ["a photo of a cat", "a ship", "a deer"]
    generators = [[torch.Generator().manual_seed(seed) for seed in range(3)] for _ in range(2)]
    expected = load_sampler(wider)(prompts, generator=generators[0], output_type="np").images
    images = load_exported(quantized, threads=1)(prompts, generators[1]).images
    errors = np.square(images[:, None] - expected[None]).mean(axis=(2, 3, 4))
    assert errors.argmin(axis=1).tolist() == [0, 1, 2]
    assert errors.min() > 0
    manifest = read_manifest(quantized)
    weights = [*load_sampler(wider).unet.parameters()]
    assert (quantized / manifest.graph("image").path).stat().st_size < 4 * sum(weight.numel() for weight in weights)
    assert manifest.graph("image").operators[FORMATS[manifest.format]] > 3


def error_in_int8(graph: Graph, calibration: list[dict[str, np.ndarray]], file: Path) -> float:
    """Convert a graph to LiteRT in int8 and measure its error, in standard deviations of the float outputs."""
    try:
        litert = load_format("litert")
    except ValueError as error:
        pytest.skip(str(error))
    litert.convert(graph, file, "int8", calibration)
    session = litert.Session(file, threads=1)
    with torch.no_grad():
        expected = np.stack([graph.module(*map(torch.from_numpy, one.values())).numpy() for one in calibration])
    outputs = np.stack([session.run(one)[0] for one in calibration])
    return float(np.sqrt(np.square(outputs - expected).mean()) / expected.std())


def test_a_convolution_in_int8_has_a_small_error(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 64, 3), nn.SiLU(), nn.Conv2d(64, 32, 3)).eval().requires_grad_(False)
    graph = Graph("image", module, {"noise": torch.randn(1, 4, 16, 16)})
    file = tmp_path / "image.tflite"
    error = error_in_int8(graph, [{"noise": torch.randn(1, 4, 16, 16).numpy()} for _ in range(16)], file)
    assert 0 < error < 0.05
    assert file.stat().st_size < 2 * sum(weight.numel() for weight in module.parameters())


def test_embeddings_and_matrices_of_text_have_a_small_error(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(256, 128), nn.Linear(128, 512)).eval().requires_grad_(False)
    graph = Graph("text_encoder", module, {"input_ids": torch.zeros(1, 16, dtype=torch.int32)})
    calibration = [{"input_ids": torch.randint(256, (1, 16), dtype=torch.int32).numpy()} for _ in range(16)]
    file = tmp_path / "text_encoder.tflite"
    assert 0 < error_in_int8(graph, calibration, file) < 0.15
    assert file.stat().st_size < 1.2 * (256 * 128 + 128 * 512 / 2)


def test_tensors_have_no_names(folder):
    manifest = read_manifest(folder)
    if manifest.format != "litert":
        pytest.skip("LiteRT's alone")
    tensors = load_format("litert").Interpreter(str(folder / manifest.graph("image").path)).get_tensor_details()
    assert len(tensors) > 100
    assert not any(tensor["name"] for tensor in tensors)
