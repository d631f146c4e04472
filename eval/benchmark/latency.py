"""Measure latency, throughput and memory of checkpoints and peers, which take turns.

After a warm-up the models take turns at each part, so that a drift of the machine hits all alike; of two calls in a
row the second is timed. The machine's matrix product takes its turn as well, and its best rate is the peak that a
network call reaches a fraction of. Memory is measured after the timed runs, in calls of its own.
"""

import math
import os
from collections.abc import Callable, Hashable, Mapping
from contextlib import contextmanager
from itertools import accumulate
from typing import TypeVar

import torch
from tqdm import tqdm

from eval.benchmark.neighbours import busy_neighbours
from eval.benchmark.peers import Peer
from eval.benchmark.size import PROMPT, network_inputs
from eval.metrics.pauses import pause
from eval.protocol import measured_with
from mobilediff.models.latent_decoder import LatentDecoder
from mobilediff.models.macs import count_params_and_macs
from mobilediff.ondevice.exported import ExportedPipeline
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.prompts import encode_text
from mobilediff.threads import check_threads, wait_policy
from mobilediff.timing import matrix_products, seconds, summary

PARTS = ("text_encoder", "network_call", "vae_decoder", "image")
MAX_BATCH_SIZE = 64
MAX_NEIGHBOURS = 64
WARM_UP = 2
MIN_RUNS = 3
# The pipeline keeps the embeddings of the first call's prompt, so an image is one of a known prompt; the time of a new
# prompt's embeddings is the text encoder's own.
TIMED = "the second of two calls in a row, an image's with its prompt's embeddings kept from the first"
# A call that takes more seconds has one warm-up and no call before a timed one: cold caches are nothing beside it.
LONG_CALL = 10

Key = TypeVar("Key", bound=Hashable)


def timed_parts(model, batch_size: int = 1, at_step: Callable | None = None) -> dict[str, Callable[[], object]]:
    """Build a call of each part of a pipeline or peer, ready to be timed; `at_step` as in `measure_latency`."""
    if isinstance(model, Peer):
        return model.timed_parts(batch_size)
    if isinstance(model, ExportedPipeline):
        return exported_parts(model, batch_size)
    inputs, prompts = network_inputs(model, batch_size), [PROMPT] * batch_size
    decoder = LatentDecoder(model.vae)
    generator = torch.Generator("cpu")
    return {
        "text_encoder": lambda: encode_text(model.tokenizer, model.text_encoder, prompts),
        "network_call": lambda: model.unet(**inputs),
        "vae_decoder": lambda: decoder(inputs["sample"]),
        "image": lambda: model(prompt=prompts, generator=generator.manual_seed(0), callback_on_step_end=at_step),
    }


def exported_parts(model: ExportedPipeline, batch_size: int) -> dict[str, Callable[[], object]]:
    """Build a call of each part of an export, ready to be timed; a fused one has no network or decoder apart."""
    generator, prompts = torch.Generator("cpu"), [PROMPT] * batch_size
    parts: dict[str, Callable[[], object]] = {"text_encoder": lambda: [model.encode_anew(one) for one in prompts]}
    if not model.plan.fused:
        calls = math.ceil(batch_size / model.plan.batch_size)
        for part, graph in (("network_call", "network"), ("vae_decoder", "decoder")):
            inputs = model.example_inputs(graph)
            parts[part] = lambda graph=graph, inputs=inputs: [model.run(graph, inputs) for _ in range(calls)]
    return parts | {"image": lambda: model(prompts, generator.manual_seed(0))}


def interleave(
    calls: Mapping[Key, Callable[[], object]],
    device: torch.device,
    rounds: int,
    max_seconds: float,
    before: Mapping[Key, Callable[[], object]] | None = None,
) -> dict[Key, list[float]]:
    """Warm each call up, then time all in turn, round after round; further arguments as in `measure_latency`.

    Args:
        calls: to be timed.
        before: of single calls, what runs untimed before each timed run; of others the call itself.

    Returns:
        The seconds of each call's timed runs.
    """
    times, long = {key: [] for key in calls}, {}
    for key, call in calls.items():
        pause()
        long[key] = seconds(call, device) > LONG_CALL
        for _ in range(0 if long[key] else WARM_UP - 1):
            call()
    for done in tqdm(range(rounds), desc="latency", unit="round"):
        for key, call in calls.items():
            pause()
            if done < MIN_RUNS or sum(times[key]) < max_seconds:
                if not long[key]:  # untimed: the call before it has filled the caches with its own weights
                    (before or {}).get(key, call)()
                times[key].append(seconds(call, device))
    return times


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Measure the peak bytes of one call beyond those allocated before it: activations, no weights.

    An accelerator counts that itself. On the CPU the process's peak belongs to all models together, so PyTorch's
    profiler records the memory that PyTorch's allocator gives and takes back; NumPy's and Pillow's is not in it.
    """
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)
        before = torch.accelerator.memory_allocated(device)
        call()
        torch.accelerator.synchronize(device)
        return torch.accelerator.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes two lines a call on stderr
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        call()
    events = profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess] - set at the block's end
    changes = (event.nbytes() for event in events if event.name() == "[memory]")  # pyright: ignore[reportAttributeAccessIssue]
    return max(accumulate(changes), default=0)


@contextmanager
def thread_count(threads: int):
    """Set the CPU threads of the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_options(threads: int, rounds: int, max_seconds: float, batch_sizes: list[int], neighbours: int = 0) -> None:
    """Refuse options that cannot be measured, before any work.

    Raises:
        ValueError: naming the option, its value and the accepted ones.
    """
    check_threads(threads)
    if rounds < MIN_RUNS:
        raise ValueError(f"rounds is {rounds}; accepted is {MIN_RUNS} or more")
    if not 0 < max_seconds < math.inf:
        raise ValueError(f"max_seconds is {max_seconds}; accepted is a number above 0")
    for batch_size in batch_sizes:
        if not 1 <= batch_size <= MAX_BATCH_SIZE:
            raise ValueError(f"batch_size is {batch_size}; accepted is 1 to {MAX_BATCH_SIZE}")
    if not 0 <= neighbours <= MAX_NEIGHBOURS:
        raise ValueError(f"neighbours is {neighbours}; accepted is 0 to {MAX_NEIGHBOURS}")


@torch.no_grad()
def measure_latency(
    pipelines: Mapping[str, MobileDiffusionPipeline | ExportedPipeline | Peer],
    threads: int = 2,
    rounds: int = 20,
    max_seconds: float = 60,
    batch_size: int = 1,
    memory: bool = False,
    neighbours: int = 0,
    at_step: Callable | None = None,
) -> dict:
    """Time every part of every pipeline and peer at one batch size, taking turns.

    Args:
        pipelines: by name, exports and peers among them, all on one device.
        threads: of the CPU.
        rounds: runs of each part; at least 3.
        max_seconds: a part whose timed runs have taken longer than this in all sits out, with at least 3 runs.
        batch_size: images of each call, 1 to 64.
        memory: also measure each part's peak memory, in one more call after the timed ones.
        neighbours: busy processes that run beside the measurement, 0 to 64.
        at_step: `callback_on_step_end` of a checkpoint's images, which may stop the measurement by an error.

    Returns:
        `models`: by name, each part's `median_ms`, `p90_ms`, `runs`, `images_per_second` (`batch_size` / median),
        `fraction_of_peak` (fp32) of the network call and, with `memory`, `peak_memory_bytes`; `protocol`: batch size,
        the machine's peaks, device, threads, how these wait and beside how many busy processes, versions, and
        `long_call_seconds`, see `LONG_CALL`.

    Raises:
        ValueError: no pipelines, or as in `check_options`.
    """
    if not pipelines:
        raise ValueError("there are no models to measure")
    check_options(threads, rounds, max_seconds, [batch_size], neighbours)
    device = next(iter(pipelines.values())).device
    with thread_count(threads), busy_neighbours(neighbours):
        parts = {name: timed_parts(model, batch_size, at_step) for name, model in pipelines.items()}
        calls = {(name, part): parts[name][part] for part in PARTS for name in pipelines if part in parts[name]}
        products = matrix_products(device)
        times = interleave(products | calls, device, rounds, max_seconds)
        result = {name: {} for name in pipelines}
        for (name, part), call in calls.items():
            pause()
            record = summary(times[name, part])
            record["images_per_second"] = 1000 * batch_size / record["median_ms"]
            if memory and not isinstance(pipelines[name], ExportedPipeline):  # whose runtime has its own allocator
                record["peak_memory_bytes"] = peak_memory(call, device)
            result[name][part] = record
        peaks = {
            f"matrix_peak_{dtype}_gflops": product.gflops(min(times[dtype])) for dtype, product in products.items()
        }
        protocol = {"batch_size": batch_size, "dtype": "fp32", "warm_up": WARM_UP, "rounds": rounds}
        protocol |= {"max_seconds": max_seconds, "timed": TIMED, "long_call_seconds": LONG_CALL}
        protocol |= {"interleaved_with": list(pipelines), "wait_policy": wait_policy(), "neighbours": neighbours}
        protocol |= peaks | {"matrix_sizes": {dtype: product.size for dtype, product in products.items()}}
        protocol |= measured_with(device)
    for name, model in pipelines.items():
        if isinstance(model, ExportedPipeline):
            continue
        macs = batch_size * count_params_and_macs(model.unet, network_inputs(model))[1]
        rate = 2 * macs / result[name]["network_call"]["median_ms"] / 1e6
        result[name]["network_call"]["fraction_of_peak"] = rate / peaks["matrix_peak_fp32_gflops"]
    return {"models": result, "protocol": protocol}


def speed_ups(models: dict, baseline: str) -> dict[str, float]:
    """Divide the baseline's median image time by that of each model that makes images.

    Raises:
        ValueError: the baseline's image was not measured.
    """
    medians = {name: parts["image"]["median_ms"] for name, parts in models.items() if "image" in parts}
    if baseline not in medians:
        raise ValueError(f"baseline is {baseline!r}; measured are {', '.join(medians)}")
    return {name: medians[baseline] / median for name, median in medians.items()}
