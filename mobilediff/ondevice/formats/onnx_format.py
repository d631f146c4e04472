"""ONNX, run by onnxruntime: on computers, on phones, and as WebAssembly or WebGPU in a browser."""

# pyright: reportMissingImports=false

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from mobilediff.ondevice.formats.onnx_int8 import QUANTIZED, quantize, quantize_weights
from mobilediff.ondevice.graphs import Graph
from mobilediff.ondevice.manifest import LayerError

SUFFIX = ".onnx"
PRECISIONS = ("fp32", "fp16", "int8")
TEXT_BLOCK = 1
RUNTIME = "onnxruntime"
LIBRARIES = ("torch", "onnx", "onnxscript", RUNTIME)
OPSET = 20
# A smaller constant would not make up for the node that widens it.
LEAST_HALVED = 128
OPTIMIZED = f"optimized{SUFFIX}"
MODULES = "pkg.torch.onnx.name_scopes"  # the exporter's note of a node: the modules that it lies in, and its operator
ERRORS = 3  # onnxruntime's level of a log without warnings


def convert(graph: Graph, file: Path, precision: str, calibration: list[dict[str, np.ndarray]]) -> list[LayerError]:
    """Write a graph as ONNX.

    In fp16 the weights are stored in 16 bits and widened when the file is loaded: checkpoints hold them in 16 bits
    already, so nothing is lost, no norm can overflow, and CPU and WebAssembly, which have no 16-bit kernels, are not
    slowed down.

    In int8 what is not quantised is stored like that as well; of the text encoder the weights alone are quantised.

    Returns:
        In int8 the error of each layer, see `quantize`.
    """
    exported = torch.onnx.export(
        graph.module,
        tuple(graph.inputs.values()),
        input_names=list(graph.inputs),
        output_names=graph.outputs,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = exported.model_proto  # pyright: ignore[reportOptionalMemberAccess] - None only for a failed export
    _name_by_modules(model)
    _drop_origins(model)
    layer_errors = []
    if precision == "int8" and graph.name == "text_encoder":
        model = quantize_weights(model)
    elif precision == "int8":
        model, layer_errors = quantize(graph.name, model, calibration)
    if precision != "fp32":
        _halve_weights(model)
    _shorten_names(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
    return layer_errors


def _name_by_modules(model: onnx.ModelProto) -> None:
    """Name the nodes that may be quantised by the module that they are of, such as network.unet.conv_in.

    Where a module has several, as attention has, or is called in several steps, the second is network.unet.conv_in:2.
    """
    counts = Counter()
    for node in model.graph.node:
        scopes = next((one.value for one in node.metadata_props if one.key == MODULES), None)
        if node.op_type in QUANTIZED and scopes is not None:
            module = ast.literal_eval(scopes)[-2]
            counts[module] += 1
            node.name = module if counts[module] == 1 else f"{module}:{counts[module]}"


def _drop_origins(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of each node's Python source, a tenth of the file."""
    for annotated in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del annotated.metadata_props[:]
        annotated.doc_string = ""
    for initializer in model.graph.initializer:
        del initializer.metadata_props[:]


def _shorten_names(model: onnx.ModelProto) -> None:
    """Number the tensors between inputs and outputs, and drop their shapes and the nodes' names."""
    names = {value.name: value.name for value in (*model.graph.input, *model.graph.output)} | {"": ""}

    def short(name: str) -> str:
        return names.setdefault(name, format(len(names), "x"))

    for initializer in model.graph.initializer:
        initializer.name = short(initializer.name)
    for node in model.graph.node:
        node.name = ""
        node.input[:], node.output[:] = map(short, node.input), map(short, node.output)
    del model.graph.value_info[:]


def _halve_weights(model: onnx.ModelProto) -> None:
    """Store large float32 constants in float16, each widened by a Cast node, which a runtime folds at loading."""
    casts = []
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if initializer.data_type != TensorProto.FLOAT or values.size < LEAST_HALVED:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:  # an attention mask's least value
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_h"))
        casts.append(helper.make_node("Cast", [f"{name}_h"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def operators(file: Path) -> dict[str, int]:
    """Count the nodes of each operator."""
    return dict(sorted(Counter(node.op_type for node in onnx.load(file).graph.node).items()))


class Session:
    """A graph loaded by onnxruntime onto the CPU.

    Args:
        file: of `convert`.
        threads: that share one run; they sleep between runs instead of spinning, so that they do not take turns with
            another process on the same cores.
        profile_folder: gets the graph that onnxruntime made of the file, `OPTIMIZED`, and at `end_profiling` the
            times of its nodes; None notes no times.
    """

    def __init__(self, file: Path, threads: int, profile_folder: Path | None = None):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if profile_folder is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_folder / "trace")
            options.optimized_model_filepath = str(profile_folder / OPTIMIZED)
            options.log_severity_level = ERRORS  # it warns that the optimised graph is of this machine alone
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.shapes = [one.shape for one in inputs], [one.shape for one in outputs]

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run the graph; outputs in their order."""
        return [np.asarray(output) for output in self.session.run(None, inputs)]
