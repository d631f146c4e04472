"""Read the times of each node that onnxruntime noted, with what the node computes.

onnxruntime fuses nodes and lays channels out in blocks, padded to whole ones. So the shapes of weights and the module
of a node are looked up in the graph as it was exported.
"""

# pyright: reportMissingImports=false

import ast
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import NodeProto, helper, numpy_helper

from mobilediff.compression.layers import Kind, Layer, convolution_kind, operator_kind
from mobilediff.files import read_json
from mobilediff.ondevice.formats.onnx_format import MODULES

CONVOLUTIONS = ("Conv", "FusedConv")
PRODUCTS = ("Gemm", "MatMul", "FusedMatMul")
VIEWS = ("Reshape", "Unsqueeze", "Squeeze")
COPIES = ("Transpose", "Concat", "Split", "Slice", "Expand", "Resize", "Upsample", "ReorderInput", "ReorderOutput")
SUFFIX = "_kernel_time"  # of a node's name in a trace
OPERATORS = "pkg.torch.onnx.class_hierarchy"


def node_times(exported: Path, optimized: Path, trace: Path) -> list[tuple[Layer, list[float]]]:
    """Read the nodes of a graph in the order they run, each with the seconds of its runs.

    Args:
        exported: the graph as PyTorch's exporter wrote it.
        optimized: the one that onnxruntime made of it.
        trace: of the runs.
    """
    seconds, described = defaultdict(list), {}
    for event in read_json(trace):
        if event["cat"] == "Node":
            name = event["name"].removesuffix(SUFFIX)
            seconds[name].append(event["dur"] / 1e6)
            described[name] = event["args"]
    source, graph = onnx.load(exported).graph, onnx.load(optimized).graph
    origins = {key: node for node in source.node for key in (node.name, *node.output)}
    weights = {weight.name: list(weight.dims) for weight in source.initializer}
    sizes = {weight.name: numpy_helper.to_array(weight).nbytes for weight in graph.initializer}
    nodes = {node.name: node for node in graph.node}
    layers = {
        name: _layer(nodes[name], _origin(nodes[name], origins), weights, sizes, described[name]) for name in seconds
    }
    return [(layer, seconds[name]) for name, layer in layers.items()]


def _origin(node: NodeProto, origins: Mapping[str, NodeProto]) -> NodeProto | None:
    """Find the exported node of a node, of a convolution the one before what was fused into it; None of a new node."""
    origin = origins.get(re.split("_nchwc$|/", node.name)[0]) or origins.get(node.output[0])
    while origin is not None and node.op_type in CONVOLUTIONS and origin.op_type != "Conv":
        origin = next((origins[value] for value in origin.input if value in origins), None)
    return origin


def _source(origin: NodeProto | None) -> tuple[str, str]:
    """Return the module and PyTorch's operator that an exported node is part of, empty where it is of none."""
    props = origin.metadata_props if origin is not None else ()
    notes = {one.key: ast.literal_eval(one.value) for one in props if one.key in (MODULES, OPERATORS)}
    return (notes[MODULES][-2], notes[OPERATORS][-1].split(".")[1]) if notes else ("", "")


def _layer(
    node: NodeProto,
    origin: NodeProto | None,
    weights: Mapping[str, list[int]],
    sizes: Mapping[str, int],
    described: Mapping,
) -> Layer:
    """Describe a node by its origin, the shapes of exported weights, the bytes of loaded ones, and its trace."""
    module, operator = _source(origin)
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    output, macs = _shape(described["output_type_shape"][0]), 0
    kind: Kind = operator_kind(operator)
    if node.op_type in CONVOLUTIONS and origin is not None:
        weight = weights[origin.input[1]]
        kind = convolution_kind(weight, attributes.get("group", 1))
        macs = output[0] * math.prod(output[2:]) * math.prod(weight)
    elif node.op_type in PRODUCTS:
        summed = _shape(described["input_type_shape"][0])[-2 if attributes.get("transA") else -1]
        macs = math.prod(output) * summed
    elif node.op_type in VIEWS + COPIES:
        kind = "reshape or copy"
    moved = int(described["activation_size"]) + int(described["output_size"])
    moved += sum(sizes.get(name, 0) for name in node.input)
    moved = 0 if node.op_type in VIEWS else moved
    return Layer(name=module or node.name, operator=node.op_type, kind=kind, macs=macs, bytes=moved)


def _shape(described: Mapping[str, list[int]]) -> list[int]:
    """Return the shape of a trace's {type: shape}."""
    return next(iter(described.values()))
