"""ExecuTorch (.pte): lowered to XNNPACK, run by its Python runtime."""

# pyright: reportMissingImports=false

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime

from mobilediff.ondevice.graphs import Graph
from mobilediff.ondevice.manifest import LayerError

SUFFIX = ".pte"
PRECISIONS = ("fp32",)
TEXT_BLOCK = 1
RUNTIME = "executorch"
LIBRARIES = ("torch", RUNTIME)


def convert(graph: Graph, file: Path, precision: str, calibration: list[dict[str, np.ndarray]]) -> list[LayerError]:
    """Write a graph as an ExecuTorch program in fp32, all that XNNPACK takes in its partitions."""
    program = torch.export.export(graph.module, tuple(graph.inputs.values()))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    file.write_bytes(lowered.to_executorch().buffer)
    return []


def operators(file: Path) -> dict[str, int]:
    """Count the calls of each operator that XNNPACK leaves to portable kernels, and of its partitions."""
    plan = deserialize_pte_binary(file.read_bytes()).program.execution_plan[0]
    counts = Counter()
    for instruction in plan.chains[0].instructions:
        arguments = instruction.instr_args
        if hasattr(arguments, "op_index"):
            counts[plan.operators[arguments.op_index].name] += 1
        elif hasattr(arguments, "delegate_index"):
            counts[plan.delegates[arguments.delegate_index].id] += 1
    return dict(sorted(counts.items()))


class Session:
    """A program loaded by ExecuTorch's runtime.

    Args:
        file: of `convert`.
        threads: that share one run, of this process's other programs too.
    """

    def __init__(self, file: Path, threads: int):
        _unsafe_reset_threadpool(threads)
        self.program = Runtime.get().load_program(file)
        self.method = self.program.load_method("forward")
        meta = self.method.metadata
        self.shapes = (
            [list(meta.input_tensor_meta(index).sizes()) for index in range(meta.num_inputs())],
            [list(meta.output_tensor_meta(index).sizes()) for index in range(meta.num_outputs())],
        )

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run the graph; outputs in their order, copied, since the next run reuses their memory."""
        outputs = self.method.execute([torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()])
        return [output.numpy().copy() for output in outputs]
