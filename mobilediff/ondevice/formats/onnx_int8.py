"""Quantised ONNX by onnxruntime: weights and activations with sensitive layers kept higher, or weights alone."""

# pyright: reportMissingImports=false

import importlib
import logging
import math
import tempfile
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process

from mobilediff.ondevice.manifest import LayerError

QUANTIZED = ("Conv", "Gemm", "MatMul")
FUSED = "/MatMulAddFusion"  # what the pre-processing adds to the name of a product that it joins with its bias
# Weights of a text encoder's MatMul: bits of each, and how many share a scale.
WEIGHT_BITS = 4
BLOCK_SIZE = 32
# Inputs that a layer's error is measured over, of those that calibrate.
MEASURED = 8
# Layers stay in 16 bits, those of the largest error a weight first, until these had this fraction of all errors.
KEPT_FRACTION = 0.5


class _Inputs(CalibrationDataReader):
    def __init__(self, inputs: list[dict[str, np.ndarray]]):
        self.remaining = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.remaining, None)


def _outputs(file: Path, inputs: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Run a model on each input: its first output, [N, ...]."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return np.stack([np.asarray(session.run(None, one)[0]) for one in inputs])


def quantize(
    name: str, model: onnx.ModelProto, inputs: list[dict[str, np.ndarray]]
) -> tuple[onnx.ModelProto, list[LayerError]]:
    """Quantise weights and activations of a graph's layers, all but the most sensitive.

    Weights have 7 bits and a scale a channel: on processors without VNNI, sums of products of 8 bits saturate. Biases
    stay in float: a runtime quantises them at loading, by the scales of input and weights, to the same integers.

    Args:
        name: of the graph.
        model: in float32.
        inputs: that calibrate the activations' ranges.

    Returns:
        The quantised model, and each layer's error: that of the graph's first output with this layer alone in int8.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, ranges, file = Path(scratch, "source.onnx"), Path(scratch, "ranges.json"), Path(scratch, "int8.onnx")
        onnx.save(model, source)
        quant_pre_process(source, source, skip_symbolic_shape=True)  # shapes are fixed, so ONNX infers them
        model = onnx.load(source)
        layers = {node.name: node.op_type for node in model.graph.node if _is_layer(node, model)}

        def with_layers(names: list[str]) -> Path:
            quantize_static(
                source,
                file,
                _Inputs(inputs),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=names,
                calibration_cache_path=ranges,
                extra_options={"QuantizeBias": False},
            )
            return file

        expected = _outputs(source, inputs[:MEASURED])
        with_layers(list(layers))  # which also keeps the ranges of all tensors
        errors = {
            layer: float(np.square(_outputs(with_layers([layer]), inputs[:MEASURED]) - expected).mean())
            for layer in layers
        }
        weights = {node.name: _weights(node, model) for node in model.graph.node if node.name in layers}
        kept = most_sensitive(errors, weights, KEPT_FRACTION)
        quantized = onnx.load(with_layers([layer for layer in layers if layer not in kept]))
    return quantized, [
        LayerError(
            graph=name,
            layer=layer.removesuffix(FUSED),
            operator=layers[layer],
            error=errors[layer],
            kept=layer in kept,
        )
        for layer in layers
    ]


def quantize_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantise a graph's weights, MatMul to 4 bits and Gather to 8, and leave its activations in float32.

    Of a text encoder, which runs once a prompt, so that its size matters and its time does not.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, file = Path(scratch, "source.onnx"), Path(scratch, "gather.onnx")
        onnx.save(model, source)
        quant_pre_process(source, source, skip_symbolic_shape=True)
        quantize_dynamic(source, file, op_types_to_quantize=["Gather"], weight_type=QuantType.QUInt8)
        options = {"bits": WEIGHT_BITS, "block_size": BLOCK_SIZE, "is_symmetric": True}
        quantizer = _matmul_quantizers().MatMulNBitsQuantizer(onnx.load(file), **options)
    quantizer.process()
    return cast(ONNXModel, quantizer.model).model


def _matmul_quantizers() -> ModuleType:
    """Import onnxruntime's module, which has all libraries of the process log from INFO on, and undo that."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    module = importlib.import_module("onnxruntime.quantization.matmul_nbits_quantizer")
    root.setLevel(level)
    root.handlers[:] = handlers
    return module


def _is_layer(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return node.op_type in QUANTIZED and _weights(node, model) > 0


def _weights(node: onnx.NodeProto, model: onnx.ModelProto) -> int:
    """Count the weights of a layer, without its bias."""
    shapes = {initializer.name: initializer.dims for initializer in model.graph.initializer}
    return sum(math.prod(shapes[name]) for name in node.input[:2] if name in shapes)


def most_sensitive(errors: dict[str, float], weights: dict[str, int], fraction: float) -> set[str]:
    """Name the layers of the largest error a weight, until their errors add up to a fraction of all.

    Keeping a layer higher costs its weights a byte each, so this is the cheapest way to that fraction but for the last
    layer's remainder.
    """
    kept, left = set(), fraction * sum(errors.values())
    for layer in sorted(errors, key=lambda layer: errors[layer] / weights[layer], reverse=True):
        if left <= 0:
            break
        kept.add(layer)
        left -= errors[layer]
    return kept
