"""Time each layer of a one-step checkpoint's image beside the machine's peaks.

An image is the one call from noise and the text's embeddings to pixels: network, scheduler's step and decoder. First
whole images are timed without profiling, in turns with the machine's matrix product and a copy in its memory. Then
each runtime profiles images in a row: PyTorch's operators are timed where its dispatcher calls them, onnxruntime notes
the times of its nodes itself.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker

from eval.benchmark.blocks import check_mobile_unet, export_onnx, session_call
from eval.benchmark.latency import WARM_UP, interleave, thread_count
from eval.protocol import library_versions, measured_with
from mobilediff.compression.layers import Layer, convolution_kind, operator_kind
from mobilediff.compression.profiled import LayerTime, Peaks, RuntimeProfile
from mobilediff.models.macs import operator_macs
from mobilediff.ondevice.formats import load_format
from mobilediff.ondevice.graphs import Graph, build_graphs, check_exportable, schedule
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.threads import wait_policy
from mobilediff.timing import MatrixProduct, MemoryCopy, seconds, summary

CPU = torch.device("cpu")
# Seconds of each whole call, and of each layer in the order they run.
Profiled = tuple[list[float], list[tuple[Layer, list[float]]]]


def image_graph(pipeline: MobileDiffusionPipeline) -> Graph:
    """Build the graph of one image in one step, batch 1, laid out as it samples.

    Raises:
        ValueError: the network is no `MobileUNet`, or as in `check_exportable` and `schedule`; or the scheduler's
            steps are not part of the graph.
    """
    check_mobile_unet(pipeline)
    check_exportable(pipeline, 1)
    graphs = {graph.name: graph for graph in build_graphs(pipeline, schedule(pipeline, 1), 1)}
    if "image" not in graphs:
        raise ValueError(f"scheduler is {type(pipeline.scheduler).__name__}; accepted is UFOGenScheduler")
    graphs["image"].module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return graphs["image"]


class OperatorTimes(TorchDispatchMode):
    """Time the operators that PyTorch's dispatcher calls in a block.

    Attributes:
        seconds: of each call, in their order.
    """

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        start = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        self.seconds.append(time.perf_counter() - start)
        return out


class OperatorLayers(TorchDispatchMode):
    """Describe the operators that PyTorch's dispatcher calls in a block.

    Args:
        module: that the block calls.
        tracker: of its modules.

    Attributes:
        layers: in the order of the calls.
    """

    def __init__(self, module: nn.Module, tracker: ModuleTracker):
        super().__init__()
        self.root, self.tracker = type(module).__name__, tracker
        self.layers: list[Layer] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        module = max(self.tracker.parents - {"Global"}, key=len).removeprefix(self.root).lstrip(".")
        self.layers.append(_layer(module, func, args, kwargs, out))
        return out


def _layer(module: str, operator: torch._ops.OpOverload, args: tuple, kwargs: dict, out) -> Layer:
    """Describe the call of an operator in a module."""
    name = operator._schema.name.removeprefix("aten::")
    taken, given = (
        [leaf for leaf in tree_leaves(one) if isinstance(leaf, torch.Tensor)] for one in ((args, kwargs), out)
    )
    stored = {tensor.untyped_storage().data_ptr() for tensor in taken}
    view = not operator._schema.is_mutable and any(tensor.untyped_storage().data_ptr() in stored for tensor in given)
    kind = "reshape or copy" if view else operator_kind(name)
    if name == "convolution":
        kind = convolution_kind(args[1].shape, args[8])
    moved = 0 if view else sum(tensor.nbytes for tensor in (*taken, *given))
    macs = operator_macs(operator, args, kwargs, out)
    return Layer(name=module or name, operator=name, kind=kind, macs=macs, bytes=moved)


def profile_pytorch(module: nn.Module, tensors: tuple[torch.Tensor, ...], calls: int) -> Profiled:
    """Time the operators of a module's calls."""
    with ModuleTracker() as tracker, OperatorLayers(module, tracker) as described:
        module(*tensors)
    whole, times = [], []
    for _ in range(calls):
        with OperatorTimes() as timed:
            whole.append(seconds(lambda: module(*tensors), CPU))
        times.append(timed.seconds)
    by_layer = map(list, zip(*times, strict=True))
    return whole, list(zip(described.layers, by_layer, strict=True))


def profile_onnx(file: Path, tensors: tuple[torch.Tensor, ...], threads: int, calls: int) -> Profiled:
    """Time the nodes of a file of `export_onnx` that onnxruntime runs."""
    onnx = load_format("onnx")
    from mobilediff.ondevice.formats.onnx_profile import node_times  # needs the library that the format needs

    with tempfile.TemporaryDirectory() as folder:
        session = onnx.Session(file, threads, Path(folder))
        call = session_call(session, tensors)
        whole = [seconds(call, CPU) for _ in range(calls)]
        trace = Path(session.session.end_profiling())
        return whole, node_times(file, Path(folder, onnx.OPTIMIZED), trace)


@torch.no_grad()
def measure_profile(graph: Graph, runtimes: Sequence[str], threads: int, rounds: int, max_seconds: float) -> dict:
    """Time the layers of an image in each runtime.

    Args:
        graph: of `image_graph`.
        runtimes: to measure in.
        threads, rounds, max_seconds: as in `measure_latency`; each runtime profiles `rounds` images as well.

    Returns:
        `protocol`, `peaks` and `runtimes` of a `Profile`.
    """
    module, tensors = graph.module, tuple(graph.inputs.values())
    calls: dict[str, Callable[[], object]] = {}
    profiles: dict[str, Callable[[int], Profiled]] = {}
    with thread_count(threads), tempfile.TemporaryDirectory() as folder:
        if "pytorch" in runtimes:
            calls["pytorch"] = lambda: module(*tensors)
            profiles["pytorch"] = lambda count: profile_pytorch(module, tensors, count)
        if "onnxruntime" in runtimes:
            file = Path(folder, "image.onnx")
            export_onnx(module, tensors, file)
            calls["onnxruntime"] = session_call(load_format("onnx").Session(file, threads), tensors)
            profiles["onnxruntime"] = lambda count: profile_onnx(file, tensors, threads, count)
        product, copy = MatrixProduct(torch.float32, CPU), MemoryCopy(CPU)
        times = interleave({"product": product, "copy": copy} | calls, CPU, rounds, max_seconds)
        rates = product.gflops(min(times["product"])), copy.gigabytes_per_second(min(times["copy"]))
        peaks = Peaks(gflops=rates[0], gigabytes_per_second=rates[1])
        measured = {
            runtime: _runtime_profile(times[runtime], profiles[runtime](WARM_UP + rounds), peaks)
            for runtime in runtimes
        }
        protocol = {"batch_size": 1, "dtype": "fp32", "num_inference_steps": 1, "warm_up": WARM_UP, "rounds": rounds}
        protocol |= {"max_seconds": max_seconds, "matrix_size": product.size, "copied_bytes": copy.source.nbytes}
        protocol |= {"wait_policy": wait_policy()} | measured_with(CPU)
    if "onnxruntime" in runtimes:
        protocol["versions"] |= library_versions(load_format("onnx").LIBRARIES)
    return {"protocol": protocol, "peaks": peaks, "runtimes": measured}


def _runtime_profile(times: Sequence[float], profiled: Profiled, peaks: Peaks) -> RuntimeProfile:
    """Summarise the seconds of images without profiling, and of profiled ones and their layers after warm-up."""
    image, (whole, layers) = summary(times), profiled
    return RuntimeProfile(
        image_ms=image["median_ms"],
        image_p90_ms=image["p90_ms"],
        profiled_image_ms=1000 * statistics.median(whole[WARM_UP:]),
        layers=[LayerTime.of(layer, peaks, 1000 * statistics.median(runs[WARM_UP:])) for layer, runs in layers],
    )
