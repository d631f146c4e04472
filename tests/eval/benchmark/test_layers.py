"""Layers of a module by hand in both runtimes, and the same multiply-accumulates as the whole image's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eval.benchmark.blocks import export_onnx
from eval.benchmark.layers import image_graph, measure_profile, profile_onnx, profile_pytorch
from mobilediff import timing
from mobilediff.models.macs import count_params_and_macs
from tests.tiny import tiny_pipeline

CONVOLUTION = 4 * 3 * 3 * 3 * 8 * 8  # channels in and out, kernel, pixels
DEPTHWISE = 3 * 3 * 3 * 8 * 8
LINEAR = 5 * 8 * 6  # tokens, features in and out
SCORES = 5 * 6 * 5


class Small(nn.Module):
    """A convolution of so few channels that a runtime pads them, a depthwise one, and tokens that attend."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3, padding=1)
        self.depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.norm = nn.GroupNorm(1, 3)
        self.linear = nn.Linear(8, 6, bias=False)

    def forward(self, image, tokens):
        image = self.norm(self.depthwise(F.relu(self.conv(image))))
        features = self.linear(tokens)
        return image, torch.matmul(features, features.transpose(1, 2))


@pytest.fixture
def small():
    return Small().requires_grad_(False), (torch.randn(1, 4, 8, 8), torch.randn(1, 5, 8))


def by_name(profiled):
    whole, layers = profiled
    assert len(whole) == 3 and min(whole) > 0
    assert all(len(runs) == 3 and min(runs) >= 0 for _, runs in layers)
    return {(layer.name, layer.kind): layer for layer, _ in layers if layer.bytes}


def test_operators_of_pytorch_are_counted_as_by_hand(small):
    module, tensors = small
    layers = by_name(profile_pytorch(module, tensors, 3))
    convolution = layers["conv", "3x3 convolution"]
    assert convolution.operator == "convolution" and convolution.macs == CONVOLUTION
    assert convolution.bytes == 4 * (4 * 64 + 3 * 4 * 9 + 3 + 3 * 64)  # input, weights, bias, output
    assert layers["depthwise", "depthwise convolution"].macs == DEPTHWISE
    linear = layers["linear", "linear"]
    assert linear.macs == LINEAR and linear.bytes == 4 * (5 * 8 + 8 * 6 + 5 * 6)
    assert layers["bmm", "attention"].macs == SCORES  # the module itself has no name
    assert layers["relu", "activation"].bytes == 4 * 2 * 3 * 64
    assert ("norm", "normalisation") in layers


def test_a_view_moves_nothing_and_what_changes_in_place_does():
    class InPlace(nn.Module):
        def forward(self, tensor):
            return tensor.add_(1).view(2, 8).transpose(0, 1)

    _, layers = profile_pytorch(InPlace(), (torch.zeros(4, 4),), 3)
    views = [("view", "reshape or copy", 0), ("transpose", "reshape or copy", 0)]
    described = [(layer.operator, layer.kind, layer.bytes) for layer, _ in layers]
    assert described == [("add_", "other", 4 * 2 * 16), *views]  # read and written


@pytest.mark.slow
def test_nodes_of_onnxruntime_are_counted_as_by_hand(small, tmp_path):
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="the extra ondevice is not installed: pip install '.[ondevice]'")
    module, tensors = small
    export_onnx(module, tensors, tmp_path / "small.onnx")
    layers = by_name(profile_onnx(tmp_path / "small.onnx", tensors, 1, 3))
    assert layers["conv", "3x3 convolution"].macs == CONVOLUTION  # with the ReLU in it, and without padding
    assert not [layer for layer in layers.values() if layer.operator == "Relu"]
    assert layers["depthwise", "depthwise convolution"].macs == DEPTHWISE
    linear = layers["linear", "linear"]
    assert linear.macs == LINEAR and linear.bytes == 4 * (5 * 8 + 8 * 6 + 5 * 6)
    (scores,) = (layer for layer in layers.values() if layer.kind == "attention")
    assert scores.macs == SCORES
    assert ("norm", "normalisation") in layers
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.onnx"]


@pytest.mark.slow
def test_both_runtimes_have_all_multiply_accumulates_of_an_image(monkeypatch):
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="the extra ondevice is not installed: pip install '.[ondevice]'")
    monkeypatch.setattr(timing, "COPIED_BYTES", 2**12)
    pipeline = tiny_pipeline("student-1step")
    graph = image_graph(pipeline)

    class Named(nn.Module):
        def forward(self, **inputs):
            return graph.module(*inputs.values())

    _, macs = count_params_and_macs(Named(), graph.inputs)
    measured = measure_profile(graph, ["pytorch", "onnxruntime"], 1, 3, 60)
    assert {runtime: one.total.macs for runtime, one in measured["runtimes"].items()} == {
        "pytorch": macs,
        "onnxruntime": macs,
    }
    kinds = [set(one.by_kind()) for one in measured["runtimes"].values()]
    assert kinds[0] == kinds[1] >= {"depthwise convolution", "attention", "normalisation"}
    assert "onnxruntime" in measured["protocol"]["versions"]
