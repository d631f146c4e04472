"""Layers that compute as in int8: by hand, against the graph that is exported, resumed, and with their own names."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mobilediff.ondevice.graphs import Graph
from mobilediff.training.engine import fake_quantization
from mobilediff.training.engine.fake_quantization import (
    FakeQuantization,
    calibration_batch,
    quantize_weight,
    quantized_layers,
)
from mobilediff.training.engine.state import load_state
from tests.mobilediff.training.engine.regression import Regression
from tests.tiny import tiny_pipeline


def test_weights_are_rounded_to_7_bits_a_channel_and_their_gradient_is_not():
    # scales are 1, 1/2 and none
    weight = torch.tensor([[64, 1.4, -0.6, 33.5], [-32, 0.3, 0.2, 8], [0, 0, 0, 0]]).requires_grad_()
    rounded = quantize_weight(weight)
    assert rounded.tolist() == [[64, 1, -1, 34], [-32, 0.5, 0, 8], [0, 0, 0, 0]]
    (rounded * torch.arange(12).reshape(3, 4)).sum().backward()
    assert weight.grad.flatten().tolist() == list(range(12))


@pytest.fixture
def identity():
    """A layer that gives what it takes, and its quantisation of -1 to 1.55: 255 steps of 0.01."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    network = nn.Sequential(layer)
    quantization = FakeQuantization(network, ["0"])
    with quantization.calibrating():
        assert network(torch.tensor([[-1.0], [1.55], [0.123]]))[2].item() == pytest.approx(0.123)
    return network, quantization


def test_activations_are_rounded_within_their_range_and_their_gradient_is_not(identity):
    network, _ = identity
    values = torch.tensor([[0.123], [-0.496], [1.549], [2.0], [-3.0]]).requires_grad_()
    rounded = network(values)
    torch.testing.assert_close(rounded, torch.tensor([[0.12], [-0.50], [1.55], [1.55], [-1.0]]))
    rounded.sum().backward()
    assert values.grad.flatten().tolist() == [1, 1, 1, 0, 0]


def test_ranges_stay_until_they_are_taken_anew(identity):
    network, quantization = identity
    network(torch.tensor([[5.0]]))
    assert network(torch.tensor([[5.0]])).item() == pytest.approx(1.55)
    with quantization.calibrating():  # 255 steps of 0.02, where -1 was the least value before
        network(torch.tensor([[5.1], [0.0]]))
    rounded = network(torch.tensor([[5.0], [-0.5], [0.123]])).flatten()
    torch.testing.assert_close(rounded, torch.tensor([5.0, 0.0, 0.12]))


def test_a_range_is_of_the_float_network_with_zero_in_it():
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False))
    with torch.no_grad():
        for layer in network:
            layer.weight.fill_(0.5)
    quantization = FakeQuantization(network, ["0", "1"])
    with quantization.calibrating():
        network(torch.tensor([2.0, 4.0]).reshape(1, 1, 1, 2))
    scales = [one.scale.item() for layer in quantization.layers for one in (layer.input, layer.output)]
    assert scales == pytest.approx([4 / 255, 2 / 255, 2 / 255, 1 / 255])


def test_names_weights_and_copies_of_a_network_stay_its_own():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    before = copy.deepcopy(network.state_dict())
    quantization = FakeQuantization(network, ["0", "2"])
    with quantization.calibrating():
        network(torch.randn(4, 1, 3, 3))
    assert list(network.state_dict()) == list(before) == [name for name, _ in network.named_parameters()]
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    other, images = copy.deepcopy(network), torch.randn(4, 1, 3, 3)
    expected = network(images)
    assert torch.equal(other(images), expected)
    nn.init.zeros_(other[2].weight)
    assert torch.equal(network(images), expected) and not torch.equal(other(images), expected)


def test_a_layer_that_the_network_lacks_is_refused():
    with pytest.raises(ValueError, match="the layer to quantise is 'conv_in'; accepted are the network's, such as 0"):
        FakeQuantization(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2)), ["conv_in"])


def layer_error(layer, kept):
    return SimpleNamespace(layer=layer, kept=kept)


def test_layers_are_those_of_the_manifest_that_are_not_kept(monkeypatch):
    errors = [layer_error("network.unet.conv_in", True), layer_error("network.unet.conv_out", False)]
    errors.append(layer_error("decoder.decoder.decoder.layers.0", False))
    manifest = SimpleNamespace(format="onnx", precision="int8", num_inference_steps=1, layer_errors=errors)
    monkeypatch.setattr(fake_quantization, "read_manifest", lambda folder: manifest)
    assert quantized_layers("export") == ["unet.conv_out", "decoder.decoder.layers.0"]
    manifest.num_inference_steps = 2
    with pytest.raises(ValueError, match="export draws in 2 steps; accepted is one"):
        quantized_layers("export")
    manifest.layer_errors, manifest.format = [], "litert"
    with pytest.raises(ValueError, match="export is an export to litert in int8, which lists no layers; accepted is"):
        quantized_layers("export")


def test_a_calibration_is_of_an_export_and_leaves_the_pipeline_alone():
    pipeline = tiny_pipeline("student-1step")
    noise, hidden_states, pooled = calibration_batch(pipeline)
    assert noise.shape == (64, 4, 16, 16) and len(hidden_states) == len(pooled) == 64
    assert len(pooled.unique(dim=0)) > 32
    assert all(parameter.requires_grad for parameter in pipeline.unet.parameters())


class Quantized(Regression):
    """Regression at ranges that are taken anew in every third step."""

    def setup(self):
        super().setup()
        self.quantization = FakeQuantization(self.network, ["0", "2"])
        self.trainer.keep("quantization", self.quantization)
        self.calibrate()

    @torch.no_grad()
    def calibrate(self):
        with self.quantization.calibrating():
            self.network(self.inputs)

    def step(self, batch, draws):
        if draws.index % 3 == 0:
            self.calibrate()
        return super().step(batch, draws)


def test_a_resumed_run_equals_an_uninterrupted_one_and_differs_from_float(tmp_path):
    Quantized(tmp_path / "whole").fit()
    Quantized(tmp_path / "parts", stop_after=5).fit()
    Quantized(tmp_path / "parts").fit()
    Regression(tmp_path / "float").fit()
    whole, parts, plain = (load_state(tmp_path / name)[0] for name in ("whole", "parts", "float"))
    assert whole.keys() == parts.keys() > plain.keys()
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    networks = [name for name in plain if name.startswith("network/network.")]
    assert networks and not any(torch.equal(whole[name], plain[name]) for name in networks)


class Small(nn.Module):
    """Convolutions and linear layers with and without a bias, one shared input, a norm and a residual."""

    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.value, self.gate = nn.Linear(8, 16, bias=False), nn.Linear(8, 16)
        self.out = nn.Linear(16, 8)
        self.conv_out = nn.Conv2d(8, 3, 1)

    def forward(self, noise):
        hidden_states = self.norm(self.conv_in(noise))
        tokens = self.depthwise(hidden_states).flatten(2).transpose(1, 2)
        tokens = self.out(self.value(tokens) * self.gate(tokens).sigmoid())
        return self.conv_out(hidden_states + tokens.transpose(1, 2).unflatten(2, hidden_states.shape[2:]))


@pytest.mark.slow
def test_it_computes_as_the_exported_graph_does(tmp_path):
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="the extra ondevice is not installed: pip install '.[ondevice]'")
    from mobilediff.ondevice.formats import onnx_format

    torch.manual_seed(0)
    network = Small().eval().requires_grad_(False)
    inputs = torch.randn(24, 1, 4, 8, 8)
    graph = Graph("image", network, {"noise": inputs[0]})
    errors = onnx_format.convert(graph, tmp_path / "image.onnx", "int8", [{"noise": one.numpy()} for one in inputs])
    layers = [one.layer for one in errors]
    assert sorted(layers) == sorted(
        name for name, one in network.named_modules() if hasattr(one, "weight") and not isinstance(one, nn.GroupNorm)
    )
    kept = {one.layer for one in errors if one.kept}
    assert 0 < len(kept) < len(layers)
    session = onnx_format.Session(tmp_path / "image.onnx", 1)
    exported = torch.from_numpy(np.concatenate([session.run({"noise": one.numpy()})[0] for one in inputs]))
    batch = inputs.flatten(0, 1)
    in_float = network(batch)
    quantization = FakeQuantization(network, [layer for layer in layers if layer not in kept])
    with quantization.calibrating():
        network(batch)
    error_in_float, error = ((one - exported).square().mean() for one in (in_float, network(batch)))
    assert 0 < error < 0.1 * error_in_float
