"""Train at weights and activations that are rounded as in an int8 export, while the weights are learned in float."""

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.quantization import FakeQuantize, MinMaxObserver

from mobilediff.ondevice.calibration import calibration_inputs
from mobilediff.ondevice.graphs import build_graphs, schedule
from mobilediff.ondevice.manifest import SIGNATURES, read_manifest
from mobilediff.pipeline import MobileDiffusionPipeline

# Of the ONNX export: 7 bits, and a scale that takes the largest weight of a channel to the last of them.
LARGEST_WEIGHT = 64
LARGEST_ACTIVATION = 255


def quantized_layers(folder: str) -> list[str]:
    """Name the layers that an int8 export quantises, in the picture's modules `unet` and `decoder`.

    Args:
        folder: of `python -m mobilediff.ondevice.export --format onnx --precision int8`.

    Raises:
        FileNotFoundError, ValueError: as in `read_manifest`, or the manifest lists no layers, or several steps'.
    """
    manifest = read_manifest(folder)
    if not manifest.layer_errors:
        raise ValueError(
            f"{folder} is an export to {manifest.format} in {manifest.precision}, which lists no layers; accepted is "
            "onnx in int8"
        )
    if manifest.num_inference_steps != 1:
        raise ValueError(f"{folder} draws in {manifest.num_inference_steps} steps; accepted is one")
    # the exported modules hold the same ones below `network` and `decoder`
    return [one.layer.partition(".")[2] for one in manifest.layer_errors if not one.kept]


def calibration_batch(pipeline: MobileDiffusionPipeline) -> list[torch.Tensor]:
    """Draw the inputs that an export of a one-step pipeline finds its ranges on, as one batch of them.

    Returns:
        Noise [N, C, H, W], the text's hidden states [N, L, D] and pooled embedding [N, P].
    """
    steps = schedule(pipeline, 1)
    graphs = build_graphs(copy.deepcopy(pipeline), steps, 1)  # which takes its modules out of training
    inputs = calibration_inputs(pipeline, graphs, steps, fused=True)["image"]
    names, _ = SIGNATURES["image"]
    return [torch.cat([torch.from_numpy(one[name]) for one in inputs]) for name in names]


def quantize_weight(weight: torch.Tensor) -> torch.Tensor:
    """Round weights [C, ...] to 7 bits with a scale for each of C output channels; the gradient passes as it is."""
    scales = weight.detach().flatten(1).abs().amax(1) / LARGEST_WEIGHT
    scales = scales.clamp(min=torch.finfo(scales.dtype).tiny)  # of a channel of zeros
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT)


class QuantizedLayer(nn.Module):
    """Compute a convolution or linear layer as in int8, and hold the ranges of its input and output.

    Both have unsigned 8 bits, one scale and one zero point, for the least and largest value of a calibration.
    """

    def __init__(self):
        super().__init__()
        self.calibrating = False
        self.input, self.output = (FakeQuantize(MinMaxObserver, 0, LARGEST_ACTIVATION) for _ in range(2))

    def calibrate(self, calibrating: bool) -> None:
        """Begin to take ranges anew of the layer in float, or round by those that were taken."""
        self.calibrating = calibrating
        for one in (self.input, self.output):
            if calibrating:
                one.activation_post_process.reset_min_max_vals()
            one.enable_observer(calibrating)
            one.enable_fake_quant(not calibrating)

    def forward(self, layer: nn.Conv2d | nn.Linear, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map what `layer` takes to what it gives, of the same shapes."""
        weight = layer.weight if self.calibrating else quantize_weight(layer.weight)
        hidden_states = self.input(hidden_states.float())
        if isinstance(layer, nn.Conv2d):
            return self.output(layer._conv_forward(hidden_states, weight, layer.bias).float())
        return self.output(F.linear(hidden_states, weight, layer.bias).float())


def find_layers(network: nn.Module, names: Collection[str]) -> list[nn.Conv2d | nn.Linear]:
    """Look up layers of a network by the names of its modules.

    Raises:
        ValueError: naming one that is no convolution or linear layer of the network.
    """
    found = {name: one for name, one in network.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}
    for name in names:
        if name not in found:
            raise ValueError(
                f"the layer to quantise is {name!r}; accepted are the network's, such as {next(iter(found))}"
            )
    return [found[name] for name in names]


class FakeQuantization(nn.Module):
    """Have layers of a network compute as in int8, and keep their weights, names and state in float.

    Quantisation-aware training (arXiv 1712.05877, section 3): forward passes see what the integers of an export
    will be, and the gradient passes the rounding as if it were not there (straight-through estimator, arXiv
    1308.3432), but not values that a range cuts off. The network's modules stay its own. So its averages, exports
    and state have the weights in float, under their names, and no quantiser.

    It follows `onnx_int8.quantize`: weights, input and output of a quantised layer are rounded; biases, norms,
    activations, additions and the products within attention are not. It differs in these:

    - A rounded input is seen by this layer alone. In the exported graph the tensor itself is rounded, so a norm or an
      addition that takes it, too, sees it rounded.
    - A runtime sums and scales integers, where here floats are: a value halfway between two integers may go to the
      other one, and what follows from it differs as any rounding does.
    - LiteRT has 8 bits for a weight, twice as fine, and keeps no layer in float.

    The layers round by the ranges of the last `calibrating` block.

    Args:
        network: whose layers are changed in place.
        layers: names of its `Conv2d` and `Linear` modules to quantise.

    Raises:
        ValueError: as in `find_layers`.
    """

    def __init__(self, network: nn.Module, layers: Collection[str]):
        super().__init__()
        self.layers = nn.ModuleList()
        for layer in find_layers(network, layers):
            quantized = QuantizedLayer()
            self.layers.append(quantized)
            layer.forward = partial(quantized, layer)

    @contextmanager
    def calibrating(self) -> Iterator[None]:
        """Take the ranges anew, of what the network computes in float in a `with` block."""
        layers = [one for one in self.layers if isinstance(one, QuantizedLayer)]
        for layer in layers:
            layer.calibrate(True)
        yield
        for layer in layers:
            layer.calibrate(False)
