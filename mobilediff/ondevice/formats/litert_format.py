"""LiteRT (.tflite): converted by litert-torch, quantised by ai-edge-quantizer, run by ai-edge-litert."""

# pyright: reportMissingImports=false

from collections import Counter
from pathlib import Path

import litert_torch
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools.flatbuffer_utils import read_model, write_model
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import QuantGranularity, TFLOperationName
from ai_edge_quantizer.quantizer import Quantizer

from mobilediff.ondevice.graphs import Graph
from mobilediff.ondevice.manifest import GraphName, LayerError

SUFFIX = ".tflite"
PRECISIONS = ("fp32", "fp16", "int8")
TEXT_BLOCK = 32
RUNTIME = "ai-edge-litert"
LIBRARIES = ("torch", "litert-torch", RUNTIME, "ai-edge-quantizer")
QUANTIZED = (TFLOperationName.CONV_2D, TFLOperationName.DEPTHWISE_CONV_2D, TFLOperationName.FULLY_CONNECTED)
SIGNATURE = "serving_default"


def convert(graph: Graph, file: Path, precision: str, calibration: list[dict[str, np.ndarray]]) -> list[LayerError]:
    """Write a graph as LiteRT.

    In fp16 the weights are stored in 16 bits and widened where a processor has no such. In int8 the layers' weights
    and activations are quantised; of the text encoder, which runs once a prompt, the embeddings to 8 bits and the
    matrices to 4 with a scale for each 32, while each call finds the ranges of its activations.

    Its signature's inputs are args_0, args_1, ... and its outputs output_0, ..., in the graph's order.
    """
    litert_torch.convert(graph.module, tuple(graph.inputs.values())).export(str(file))
    if precision != "fp32":
        _quantize(graph.name, file, precision, calibration)
    _drop_names(file)
    return []


def _quantize(name: GraphName, file: Path, precision: str, calibration: list[dict[str, np.ndarray]]) -> None:
    quantizer, ranges = Quantizer(str(file)), None
    if precision == "fp16":
        quantizer.add_weight_only_config(
            ".*", TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
    elif name == "text_encoder":
        quantizer.add_weight_only_config(".*", TFLOperationName.EMBEDDING_LOOKUP, num_bits=8)
        blocks = QuantGranularity[f"BLOCKWISE_{TEXT_BLOCK}"]
        quantizer.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, num_bits=4, granularity=blocks)
    else:
        for operation in QUANTIZED:
            quantizer.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
        ranges = quantizer.calibrate({SIGNATURE: [_arguments(inputs) for inputs in calibration]})
    quantizer.quantize(ranges).export_model(str(file), overwrite=True)


def _drop_names(file: Path) -> None:
    """Drop the tensors' names, half a megabyte of an export; the signature finds inputs and outputs by number."""
    model = read_model(file)
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            tensor.name = None
    write_model(model, file)


def _arguments(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"args_{index}": value for index, value in enumerate(inputs.values())}


def operators(file: Path) -> dict[str, int]:
    """Count the nodes of each operator, before a delegate takes them."""
    interpreter = Interpreter(str(file), experimental_preserve_all_tensors=True)
    return dict(sorted(Counter(details["op_name"] for details in interpreter._get_ops_details()).items()))


class Session:
    """A graph loaded by the interpreter with its XNNPACK delegate.

    Args:
        file: of `convert`.
        threads: that share one run.
    """

    def __init__(self, file: Path, threads: int):
        self.interpreter = Interpreter(str(file), num_threads=threads)
        self.runner = self.interpreter.get_signature_runner()
        inputs, outputs = self.runner.get_input_details(), self.runner.get_output_details()
        self.shapes = (
            [inputs[f"args_{index}"]["shape"].tolist() for index in range(len(inputs))],
            [outputs[f"output_{index}"]["shape"].tolist() for index in range(len(outputs))],
        )

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run the graph; outputs in their order."""
        outputs = self.runner(**_arguments(inputs))
        return [outputs[f"output_{index}"] for index in range(len(outputs))]
