"""Time the parts of a network one by one, and whole networks without some of its blocks, in turns.

Before each timed run of a part the whole network runs once, untimed: so the part's weights lie in the caches as they
do within a network, and not as after a run of the part alone, whose time would be too short.
"""

import random
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from eval.benchmark.latency import interleave, thread_count
from eval.benchmark.size import network_inputs
from eval.protocol import library_versions, measured_with
from mobilediff.compression.blocks import block_names, remove_blocks, without_blocks
from mobilediff.compression.latency import NetworkCheck, PartTime, Runtime, RuntimeTable
from mobilediff.compression.parts import Part, network_parts
from mobilediff.compression.pruned import TurnTime
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.ondevice.formats import load_format
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.threads import wait_policy
from mobilediff.timing import summary

RUNTIMES = get_args(Runtime)
EMPTY = "a call that does nothing"
Timer = Callable[..., Mapping[str, list[float]]]
# Makes a call, ready to be timed, of a module and its tensors.
Prepare = Callable[[nn.Module, tuple[torch.Tensor, ...]], Callable[[], object]]


class WholeNetwork(nn.Module):
    """A network called with its tensors in order, returning a tensor, as ONNX needs it."""

    def __init__(self, unet: MobileUNet):
        super().__init__()
        self.unet = unet

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Predict [B, C, H, W] from sample, timestep, text and, where the network takes it, pooled text."""
        return self.unet(*tensors, return_dict=False)[0]


def check_runtimes(runtimes: Collection[str], device: torch.device) -> None:
    """Refuse a runtime that is unknown, not installed, or does not run on a device.

    Raises:
        ValueError: naming it.
    """
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime is {runtime!r}; accepted are {', '.join(RUNTIMES)}")
    if "onnxruntime" in runtimes:
        if device.type != "cpu":
            raise ValueError(f"the device is {device.type}, but onnxruntime runs on the CPU: ACCELERATE_USE_CPU=1")
        load_format("onnx")


def export_onnx(module: nn.Module, tensors: tuple[torch.Tensor, ...], file: Path) -> None:
    """Write a module with example inputs as ONNX whose nodes keep their names and origins, to be timed."""
    contiguous = tuple(tensor.contiguous() for tensor in tensors)
    opset = load_format("onnx").OPSET
    exported = torch.onnx.export(module.eval(), contiguous, opset_version=opset, dynamo=True, verbose=False)
    exported.save(file)  # pyright: ignore[reportOptionalMemberAccess] - None only for a failed export


def session_call(session, tensors: tuple[torch.Tensor, ...]) -> Callable[[], object]:
    """Make a call of an ONNX `Session` with tensors in the order of its inputs."""
    arrays = (tensor.contiguous().numpy() for tensor in tensors)
    inputs = dict(zip((one.name for one in session.session.get_inputs()), arrays, strict=True))
    return lambda: session.run(inputs)


@contextmanager
def prepared_by(runtime: str, threads: int) -> Iterator[Prepare]:
    """Yield the function that prepares calls for a runtime; files that it needs are gone after the block."""
    if runtime == "pytorch":
        yield lambda module, tensors: lambda: module(*tensors)
        return
    onnx = load_format("onnx")
    with tempfile.TemporaryDirectory() as folder:
        count = iter(range(10**6))

        def prepare(module: nn.Module, tensors: tuple[torch.Tensor, ...]) -> Callable[[], object]:
            file = Path(folder, f"{next(count)}{onnx.SUFFIX}")
            export_onnx(module, tensors, file)
            return session_call(onnx.Session(file, threads), tensors)

        yield prepare


def random_removals(names: Sequence[str], count: int, seed: int = 0) -> list[list[str]]:
    """Draw sets of blocks to remove, their sizes spread evenly from none to all but one.

    Args:
        names: blocks to choose from.
        count: sets.
        seed: of the draw.
    """
    generator = random.Random(seed)
    sizes = [round(index * (len(names) - 1) / max(count - 1, 1)) for index in range(count)]
    chosen = [set(generator.sample(list(names), size)) for size in sizes]
    return [[name for name in names if name in removed] for removed in chosen]


def table_parts(unet: MobileUNet, inputs: Mapping[str, torch.Tensor]) -> dict[str, Part]:
    """List the parts of a network and of all networks with fewer of its blocks, by key."""
    parts = network_parts(unet, inputs)
    with without_blocks(unet, block_names(unet)):
        parts += network_parts(unet, inputs)
    return {part.key: part for part in parts}


@torch.no_grad()
def measure_runtime(
    pipeline: MobileDiffusionPipeline,
    runtime: str,
    networks: Sequence[Sequence[str]],
    threads: int,
    rounds: int,
    max_seconds: float,
    batch_size: int = 1,
    timer: Timer = interleave,
) -> RuntimeTable:
    """Time the parts of a pipeline's network in a runtime, and networks without some of its blocks.

    Args:
        pipeline: a checkpoint with a `MobileUNet`, on the CPU for onnxruntime.
        runtime: "pytorch" or "onnxruntime".
        networks: of each whole network to compare with its prediction, the blocks that it lacks.
        threads, rounds, max_seconds, batch_size: as in `measure_latency`.
        timer: of the calls, as `interleave`.

    Raises:
        ValueError: as in `check_block_names`.
    """
    unet, inputs = pipeline.unet, network_inputs(pipeline, batch_size)
    parts, tensors = table_parts(unet, inputs), tuple(inputs.values())
    lacking = {f"network {index}": list(names) for index, names in enumerate(networks)}
    with thread_count(threads), prepared_by(runtime, threads) as prepare:
        whole = prepare(WholeNetwork(unet), tensors)
        calls = {EMPTY: prepare(nn.Identity(), tensors[:1])}
        calls |= {key: prepare(part.module, part.inputs) for key, part in parts.items()}
        before = dict.fromkeys(parts, whole)
        for name, removed in lacking.items():
            calls[name] = prepare(_network_without(unet, removed), tensors)
        times = timer(calls, pipeline.device, rounds, max_seconds, before)
    table = RuntimeTable(
        call_ms=summary(times[EMPTY])["median_ms"], parts={key: _time(part, times[key]) for key, part in parts.items()}
    )
    checks = []
    for name, removed in lacking.items():
        with without_blocks(unet, removed):
            predicted = table.network_ms(network_parts(unet, inputs))
        measured = summary(times[name])["median_ms"]
        error = 100 * (predicted - measured) / measured
        checks.append(
            NetworkCheck(removed_blocks=removed, predicted_ms=predicted, measured_ms=measured, error_percent=error)
        )
    return table.model_copy(update={"networks": checks})


@torch.no_grad()
def measure_network(
    pipeline: MobileDiffusionPipeline,
    runtime: str,
    removed: Collection[str],
    threads: int,
    rounds: int,
    max_seconds: float,
    batch_size: int = 1,
    timer: Timer = interleave,
) -> float:
    """Time a pipeline's network without some of its blocks; arguments as in `measure_runtime`.

    Returns:
        The median in milliseconds.
    """
    tensors = tuple(network_inputs(pipeline, batch_size).values())
    with thread_count(threads), prepared_by(runtime, threads) as prepare:
        call = prepare(_network_without(pipeline.unet, removed), tensors)
        times = timer({"network": call}, pipeline.device, rounds, max_seconds, {})
    return summary(times["network"])["median_ms"]


def _network_without(unet: MobileUNet, removed: Collection[str]) -> WholeNetwork:
    return _timed(remove_blocks(unet, removed))


def _timed(unet: MobileUNet) -> WholeNetwork:
    """Put a network into the state and layout in which it samples."""
    return WholeNetwork(unet.eval().to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]


def _time(part: Part, times: Sequence[float]) -> PartTime:
    return PartTime(kind=part.kind, width=part.width, resolution=part.resolution, **summary(times))


def measure_blocks(
    pipeline: MobileDiffusionPipeline,
    runtimes: Sequence[str],
    networks: int,
    threads: int,
    rounds: int,
    max_seconds: float,
    batch_size: int = 1,
    timer: Timer = interleave,
) -> dict:
    """Measure the table of a pipeline's network; further arguments as in `measure_runtime`.

    Args:
        runtimes: to measure in.
        networks: number of whole networks to compare with their predictions.

    Returns:
        `batch_size`, `dtype`, `protocol` and `runtimes` of a `LatencyTable`.

    Raises:
        ValueError: the network is no `MobileUNet`.
    """
    check_mobile_unet(pipeline)
    removals = random_removals(block_names(pipeline.unet), networks)
    options = threads, rounds, max_seconds, batch_size, timer
    measured = {runtime: measure_runtime(pipeline, runtime, removals, *options) for runtime in runtimes}
    with thread_count(threads):
        protocol = {"rounds": rounds, "max_seconds": max_seconds, "before_a_part": "a call of the whole network"}
        protocol |= {"wait_policy": wait_policy()} | measured_with(pipeline.device)
    if "onnxruntime" in runtimes:
        protocol["versions"] |= library_versions(load_format("onnx").LIBRARIES)
    return {"batch_size": batch_size, "dtype": "fp32", "protocol": protocol, "runtimes": measured}


@contextmanager
def in_turns_with(
    unpruned: MobileUNet,
    inputs: Mapping[str, torch.Tensor],
    threads: int,
    rounds: int,
    max_seconds: float,
    timer: Timer = interleave,
) -> Iterator[Callable[[MobileUNet, str], TurnTime]]:
    """Yield a function that times a network's call in a runtime, in turns with the unpruned network's.

    So a drift of the machine hits both, and their times can be divided by each other.

    Args:
        unpruned: the network to compare with.
        inputs: of a call of any of the networks.
        threads, rounds, max_seconds: as in `measure_latency`.
        timer: of the calls, as `interleave`.
    """
    tensors, prepared, compared = tuple(inputs.values()), {}, {}
    with ExitStack() as stack:

        @torch.no_grad()
        def turns(network: MobileUNet, runtime: str) -> TurnTime:
            if runtime not in prepared:
                prepared[runtime] = stack.enter_context(prepared_by(runtime, threads))
                compared[runtime] = prepared[runtime](_timed(unpruned), tensors)
            with thread_count(threads):
                calls = {"network": prepared[runtime](_timed(network), tensors), "unpruned": compared[runtime]}
                times = timer(calls, unpruned.device, rounds, max_seconds, {})
            medians = {key: summary(times[key])["median_ms"] for key in calls}
            return TurnTime(median_ms=medians["network"], unpruned_ms=medians["unpruned"])

        yield turns


def check_mobile_unet(pipeline: MobileDiffusionPipeline) -> None:
    """Refuse a pipeline whose network has no removable blocks.

    Raises:
        ValueError: naming the network's class.
    """
    if not isinstance(pipeline.unet, MobileUNet):
        raise ValueError(f"the network is a {type(pipeline.unet).__name__}; accepted is a MobileUNet")
