"""Quantisation to 8 bits: which layers stay higher, and small graphs before and after."""

import logging
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the extra ondevice is not installed: pip install '.[ondevice]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="the extra ondevice is not installed: pip install '.[ondevice]'"
)
from onnx import helper, numpy_helper  # noqa: E402

from mobilediff.ondevice.formats import onnx_format, onnx_int8  # noqa: E402
from mobilediff.ondevice.formats.onnx_int8 import most_sensitive, quantize, quantize_weights  # noqa: E402


def model_of(nodes, inputs, output, **weights):
    """A float32 model of these nodes and weights."""
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def value(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize(
    ("fraction", "kept"),
    [(0.0, set()), (0.5, {"small"}), (0.7, {"small", "middle"}), (1.0, {"small", "middle", "large"})],
)
def test_the_largest_errors_a_weight_are_kept_until_the_fraction(fraction, kept):
    errors, weights = {"large": 3.0, "small": 5.0, "middle": 2.0}, {"large": 1000, "small": 10, "middle": 100}
    assert most_sensitive(errors, weights, fraction) == kept


def test_layers_are_named_by_their_modules_and_further_calls_are_counted():
    scopes = ["['', 'network', 'network.conv', 'conv2d']", "['', 'network', 'network.conv', 'conv2d_1']"]
    nodes = [helper.make_node(operator, [f"{i}"], [f"{i + 1}"], name=f"node{i}")
             for i, operator in enumerate(("Conv", "Relu", "Conv", "MatMul"))]  # fmt: skip
    for node, scope in zip((nodes[0], nodes[2]), scopes, strict=True):
        node.metadata_props.add(key=onnx_format.MODULES, value=scope)
    nodes[1].metadata_props.add(key=onnx_format.MODULES, value="['', 'network', 'network.act', 'relu']")
    model = helper.make_model(helper.make_graph(nodes, "graph", [], []))
    onnx_format._name_by_modules(model)
    assert [node.name for node in model.graph.node] == ["network.conv", "node1", "network.conv:2", "node3"]


def test_weights_alone_are_quantised_with_small_error():
    rows = np.random.default_rng(0)
    table, weight = (rows.normal(size=(256, 128)).astype(np.float32) for _ in range(2))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="gather"),
        helper.make_node("MatMul", ["rows", "weight"], ["out"], name="matmul"),
    ]
    inputs = [value("ids", onnx.TensorProto.INT32, 8)]
    model = model_of(nodes, inputs, value("out", onnx.TensorProto.FLOAT, 8, 256), table=table, weight=weight.T.copy())
    expected = run(model, {"ids": np.arange(8, dtype=np.int32)})
    quantized = quantize_weights(model)
    assert Counter(node.op_type for node in quantized.graph.node)["MatMulNBits"] == 1
    assert quantized.ByteSize() < table.nbytes / 4 + weight.nbytes / 6
    error = run(quantized, {"ids": np.arange(8, dtype=np.int32)}) - expected
    assert 0 < np.square(error).mean() < (0.12 * expected.std()) ** 2


def test_the_quantiser_leaves_the_logs_of_the_process_alone():
    program = """
import logging
from mobilediff.ondevice.formats import onnx_int8
onnx_int8._matmul_quantizers().MatMulNBitsQuantizer
print(logging.getLogger().level, logging.getLogger().handlers)
"""
    logs = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert logs == f"{logging.WARNING} []\n"


def test_biases_stay_in_float_and_run_in_int8(tmp_path, monkeypatch):
    rows = np.random.default_rng(0)
    weight, bias = rows.normal(size=(8, 4, 1, 1)).astype(np.float32), rows.normal(size=8).astype(np.float32)
    nodes = [helper.make_node("Conv", ["in", "weight", "bias"], ["out"], name="conv")]
    inputs = [value("in", onnx.TensorProto.FLOAT, 1, 4, 8, 8)]
    output = value("out", onnx.TensorProto.FLOAT, 1, 8, 8, 8)
    batches = [{"in": rows.normal(size=(1, 4, 8, 8)).astype(np.float32)} for _ in range(8)]
    model = model_of(nodes, inputs, output, weight=weight, bias=bias)
    monkeypatch.setattr(onnx_int8, "KEPT_FRACTION", 0.0)
    quantized, _ = quantize("image", model, batches)
    assert all(tensor.data_type != onnx.TensorProto.INT32 for tensor in quantized.graph.initializer)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(quantized.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert "QLinearConv" in [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]


def test_the_layer_of_the_large_error_stays_in_float():
    rows = np.random.default_rng(0)
    first, second = (rows.normal(size=(4, 4, 1, 1)).astype(np.float32) for _ in range(2))
    nodes = [
        helper.make_node("Conv", ["in", "first"], ["between"], name="first"),
        helper.make_node("Mul", ["between", "scale"], ["scaled"], name="mul"),
        helper.make_node("Conv", ["scaled", "second"], ["out"], name="second"),
    ]
    # the first input channel is so wide that 8 bits of it lose the others, which its weight then hides
    first[:, 0] = 1e-3
    scale = np.float32([[[[1]]]])
    model = model_of(
        nodes,
        [value("in", onnx.TensorProto.FLOAT, 1, 4, 8, 8)],
        value("out", onnx.TensorProto.FLOAT, 1, 4, 8, 8),
        first=first,
        second=second,
        scale=scale,
    )
    inputs = [{"in": rows.normal(size=(1, 4, 8, 8)).astype(np.float32)} for _ in range(8)]
    for one in inputs:
        one["in"][:, 0] *= 300
    quantized, errors = quantize("image", model, inputs)
    found = {one.layer: one for one in errors}
    assert found["first"].error > 10 * found["second"].error > 0
    assert found["first"].kept and not found["second"].kept
    expected, images = run(model, inputs[0]), run(quantized, inputs[0])
    assert np.square(images - expected).mean() < 2 * found["second"].error
