"""Parameters, multiply-accumulates, latency, throughput and memory of checkpoints and of peers, at batch 1 to 64.

    python -m eval.latency --model checkpoints/student-1step checkpoints/teacher --threads 2 --baseline teacher
    python -m eval.latency --model checkpoints/* --peers --batch-sizes 1 8 64 --json latency.json

Parts: text encoder (one prompt an image), network call (unguided), decoder, and image (the whole pipeline at its
default steps and guidance, for a prompt that it has seen: a new one adds the text encoder). After a warm-up the models
take turns at each part, so that a drift of the machine hits all alike; of two calls in a row the second is timed. The
machine's matrix product takes its turn as well, and its best rate is the peak that a network call has its share of.
Memory is measured after the timed runs, in calls of its own.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Hashable
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import torch
from accelerate import PartialState
from tqdm import tqdm

from eval.peers import PEERS, Peer, load_peers
from eval.protocol import folder_sha256, measured_with
from eval.sampling import load_sampler
from eval.show import keep_result
from mobilediff.models.latent_decoder import LatentDecoder
from mobilediff.models.macs import count_params_and_macs
from mobilediff.pipeline import encode_text
from mobilediff.timing import matrix_gflops, matrix_products, seconds, summary

PROMPT = "a photo of a fire truck"
PARTS = ("text_encoder", "network_call", "vae_decoder", "image")
MAX_BATCH_SIZE = 64
WARM_UP = 2
MIN_RUNS = 3
# The pipeline keeps the embeddings of the first call's prompt, so an image is one of a known prompt; the time of a new
# prompt's embeddings is the text encoder's own.
TIMED = "the second of two calls in a row, an image's with its prompt's embeddings kept from the first"
# A call that takes more seconds has one warm-up and no call before a timed one: cold caches are nothing beside it.
LONG_CALL = 10
FP32_BYTES = 4


def network_inputs(model, batch_size: int = 1) -> dict[str, torch.Tensor]:
    """The arguments of one network call for `batch_size` samples, of a pipeline or a peer."""
    if isinstance(model, Peer):
        return model.network_inputs(batch_size)
    config = model.unet.config
    height, width = (config.sample_size,) * 2 if isinstance(config.sample_size, int) else config.sample_size
    hidden_states, pooled = encode_text(model.tokenizer, model.text_encoder, [PROMPT] * batch_size)
    return {
        "sample": torch.zeros(batch_size, config.in_channels, height, width, device=model.device),
        "timestep": torch.full((batch_size,), 500, device=model.device),
        "encoder_hidden_states": hidden_states,
        "class_labels": pooled,
    }


@torch.no_grad()
def measure_size(pipeline, folder: str | Path) -> dict:
    """What does not depend on the machine.

    Returns:
        `params_unet`, `params_vae_decoder`, `params_text_encoder` and their sum `params_total`; `macs_network_call`
        (one sample, unguided), `macs_vae_decoder`, `macs_text_encoder` (one prompt) and `macs_image` (NFE x network +
        decoder + one prompt, two when guided); `nfe`, `num_inference_steps`, `guidance_scale`; `weights_bytes` of the
        checkpoint's safetensors files.
    """
    inputs = network_inputs(pipeline)
    tokens = torch.zeros(1, pipeline.tokenizer.model_max_length, dtype=torch.int64, device=pipeline.device)
    params, macs = {}, {}
    params["unet"], macs["network_call"] = count_params_and_macs(pipeline.unet, inputs)
    decoder = LatentDecoder(pipeline.vae)
    params["vae_decoder"], macs["vae_decoder"] = count_params_and_macs(decoder, {"latents": inputs["sample"]})
    params["text_encoder"], macs["text_encoder"] = count_params_and_macs(pipeline.text_encoder, {"input_ids": tokens})
    params["total"] = sum(params.values())
    steps, nfe = pipeline.config.default_num_inference_steps, pipeline.nfe()
    prompts = 2 if nfe > steps else 1
    macs["image"] = nfe * macs["network_call"] + macs["vae_decoder"] + prompts * macs["text_encoder"]
    return {
        **{f"params_{name}": value for name, value in params.items()},
        **{f"macs_{name}": value for name, value in macs.items()},
        "nfe": nfe,
        "num_inference_steps": steps,
        "guidance_scale": pipeline.config.default_guidance_scale if nfe > steps else 1.0,
        "weights_bytes": sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors")),
    }


def timed_parts(model, batch_size: int = 1) -> dict[str, Callable[[], object]]:
    """One call of each part that a pipeline or a peer has, ready to be timed."""
    if isinstance(model, Peer):
        return model.timed_parts(batch_size)
    inputs, prompts = network_inputs(model, batch_size), [PROMPT] * batch_size
    decoder = LatentDecoder(model.vae)
    generator = torch.Generator("cpu")
    return {
        "text_encoder": lambda: encode_text(model.tokenizer, model.text_encoder, prompts),
        "network_call": lambda: model.unet(**inputs),
        "vae_decoder": lambda: decoder(inputs["sample"]),
        "image": lambda: model(prompt=prompts, generator=generator.manual_seed(0)),
    }


def take_turns(
    calls: dict[Hashable, Callable[[], object]], device: torch.device, rounds: int, max_seconds: float
) -> dict[Hashable, list[float]]:
    """Warm each call up, then time them all in turn, round after round; arguments as in `measure_latency`.

    Returns:
        The seconds of each call's timed runs.
    """
    times, long = {key: [] for key in calls}, {}
    for key, call in calls.items():
        long[key] = seconds(call, device) > LONG_CALL
        for _ in range(0 if long[key] else WARM_UP - 1):
            call()
    for done in tqdm(range(rounds), desc="latency", unit="round"):
        for key, call in calls.items():
            if done < MIN_RUNS or sum(times[key]) < max_seconds:
                if not long[key]:
                    call()  # untimed: the call before it has filled the caches with its own weights
                times[key].append(seconds(call, device))
    return times


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that one call holds at its peak beyond what was allocated before it: activations and results, no weights.

    An accelerator counts that itself. On the CPU the process's peak belongs to all models together, so PyTorch's
    profiler notes what the call allocates and frees in PyTorch's allocator; NumPy's and Pillow's memory is not in it.
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
    changes = (event.nbytes() for event in profiler.kineto_results.events() if event.name() == "[memory]")
    return max(accumulate(changes), default=0)


@contextmanager
def thread_count(threads: int):
    """Runs the block on that many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_options(threads: int, rounds: int, max_seconds: float, batch_sizes: list[int]) -> None:
    """Refuse what cannot be measured, before any work.

    Raises:
        ValueError: naming the option, its value and what is accepted.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; accepted is 1 or more")
    if rounds < MIN_RUNS:
        raise ValueError(f"rounds is {rounds}; accepted is {MIN_RUNS} or more")
    if not 0 < max_seconds < math.inf:
        raise ValueError(f"max_seconds is {max_seconds}; accepted is a number above 0")
    for batch_size in batch_sizes:
        if not 1 <= batch_size <= MAX_BATCH_SIZE:
            raise ValueError(f"batch_size is {batch_size}; accepted is 1 to {MAX_BATCH_SIZE}")


@torch.no_grad()
def measure_latency(
    pipelines: dict[str, object],
    threads: int = 2,
    rounds: int = 20,
    max_seconds: float = 60,
    batch_size: int = 1,
    memory: bool = False,
) -> dict:
    """Time every part of every pipeline and peer at one batch size, taking turns.

    Args:
        pipelines: by name, peers among them, all on one device.
        threads: of the CPU.
        rounds: runs of each part; at least 3.
        max_seconds: a part whose timed runs have taken longer than this in all sits out, with at least 3 runs.
        batch_size: images of each call, 1 to 64.
        memory: also measure each part's peak memory, in one more call after the timed ones.

    Returns:
        `models`: by name, each part's `median_ms`, `p90_ms`, `runs`, `images_per_second` (`batch_size` / median),
        `share_of_peak` (fp32) of the network call and, with `memory`, `peak_memory_bytes`; `protocol`: batch size,
        the machine's peaks, device, threads and versions, and `long_call_seconds`, see `LONG_CALL`.

    Raises:
        ValueError: no pipelines, or as in `check_options`.
    """
    if not pipelines:
        raise ValueError("there are no models to measure")
    check_options(threads, rounds, max_seconds, [batch_size])
    device = next(iter(pipelines.values())).device
    with thread_count(threads):
        parts = {name: timed_parts(model, batch_size) for name, model in pipelines.items()}
        calls = {(name, part): parts[name][part] for part in PARTS for name in pipelines if part in parts[name]}
        products = matrix_products(device)
        times = take_turns(products | calls, device, rounds, max_seconds)
        result = {name: {} for name in pipelines}
        for (name, part), call in calls.items():
            record = summary(times[name, part])
            record["images_per_second"] = 1000 * batch_size / record["median_ms"]
            if memory:
                record["peak_memory_bytes"] = peak_memory(call, device)
            result[name][part] = record
        peaks = {f"matrix_peak_{dtype}_gflops": matrix_gflops(min(times[dtype])) for dtype in products}
        protocol = {"batch_size": batch_size, "dtype": "fp32", "warm_up": WARM_UP, "rounds": rounds}
        protocol |= {"max_seconds": max_seconds, "timed": TIMED, "long_call_seconds": LONG_CALL}
        protocol |= {"interleaved_with": list(pipelines)} | peaks | measured_with(device)
    for name, model in pipelines.items():
        macs = batch_size * count_params_and_macs(model.unet, network_inputs(model))[1]
        rate = 2 * macs / result[name]["network_call"]["median_ms"] / 1e6
        result[name]["network_call"]["share_of_peak"] = rate / peaks["matrix_peak_fp32_gflops"]
    return {"models": result, "protocol": protocol}


def speed_ups(models: dict, baseline: str) -> dict[str, float]:
    """How many times faster than the baseline each model that makes images makes one, by medians.

    Raises:
        ValueError: the baseline's image was not measured.
    """
    medians = {name: parts["image"]["median_ms"] for name, parts in models.items() if "image" in parts}
    if baseline not in medians:
        raise ValueError(f"baseline is {baseline!r}; measured are {', '.join(medians)}")
    return {name: medians[baseline] / median for name, median in medians.items()}


def table(result: dict) -> str:
    """The result of `measure_all` as aligned text: a line for each model and batch size, and what the columns are."""
    baseline = result.get("baseline")
    titles = ["model", "batch", "text encoder", "network call", "of peak", "decoder", "image", "images/s"]
    rows = [[*titles, "peak MB", "weights MB", *([f"x {baseline}"] if baseline else [])]]
    for batch in result["batches"]:
        for name, parts in batch["models"].items():
            times = {part: f"{record['median_ms']:.2f} / {record['p90_ms']:.2f}" for part, record in parts.items()}
            network, image = parts["network_call"], parts.get("image")
            row = [name, str(batch["protocol"]["batch_size"]), times.get("text_encoder", ""), times["network_call"]]
            row += [f"{network['share_of_peak']:.1%}", times.get("vae_decoder", ""), times.get("image", "")]
            row += [f"{image['images_per_second']:.2f}" if image else ""]
            row += [f"{(image or network)['peak_memory_bytes'] / 1e6:.1f}"]
            row += [f"{result['models'][name]['weights_memory_bytes'] / 1e6:.1f}"]
            if baseline:
                row += [f"{batch['times_faster'][name]:.2f}" if image else ""]
            rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join([*lines, "", *legend(result)])


def legend(result: dict) -> list[str]:
    """What the columns of `table` are."""
    peaks = ", ".join(f"{batch['protocol']['matrix_peak_fp32_gflops']:.0f}" for batch in result["batches"])
    lines = [
        "Times are ms a call, median / 90th percentile. Of peak: the network call's share of the machine's fp32 "
        f"matrix product ({peaks} GFLOP/s).",
        "Peak MB: what the call allocates beyond the weights, of the image, or of the network where there is none.",
    ]
    if "baseline" in result:
        lines.append(f"x {result['baseline']}: how many times faster an image is, at the same batch size.")
    if peers := [name for name, size in result["models"].items() if size["weights"] == "random"]:
        lines.append(f"Random weights: {', '.join(peers)}.")
    return lines


def named_models(models: list[str], peers: list[str], baseline: str | None) -> tuple[dict[str, Path], str | None]:
    """The checkpoint folders by name, the baseline's among them, and the baseline's name.

    Raises:
        ValueError: nothing to measure, two of one name, or a baseline that is not there or makes no image.
    """
    folders = dict.fromkeys(Path(folder).resolve() for folder in models)
    names = [*(folder.name for folder in folders), *peers]
    if baseline is not None and baseline not in names:
        if not Path(baseline).is_dir():
            raise ValueError(f"baseline is {baseline!r}; accepted are a checkpoint folder, {', '.join(names)}")
        folder = Path(baseline).resolve()
        names += [folder.name] if folder not in folders else []
        folders[folder], baseline = None, folder.name
    if not names:
        raise ValueError("there is nothing to measure; accepted are --model FOLDER and --peers")
    if len(set(names)) < len(names):
        given = ", ".join([*map(str, folders), *peers])
        raise ValueError(f"two of {given} have one name; accepted are different names")
    if baseline in peers and PEERS[baseline].num_inference_steps is None:
        raise ValueError(f"baseline is {baseline!r}, which makes no image; accepted are models that do")
    return {folder.name: folder for folder in folders}, baseline


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m eval.latency", description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=[], help="checkpoint folders")
    parser.add_argument("--peers", nargs="*", choices=tuple(PEERS), help="peers by name (default of --peers: all)")
    parser.add_argument("--baseline", help="what speed is compared with: a folder, or what is measured by its name")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1], help=f"images a call, to {MAX_BATCH_SIZE}")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each part")
    parser.add_argument("--max-seconds", type=float, default=60, help="a part that took longer in all sits out")
    parser.add_argument("--json", help="also write the result to this file")
    args = parser.parse_args(argv)
    args.batch_sizes = list(dict.fromkeys(args.batch_sizes))
    args.peers = list(dict.fromkeys(PEERS if args.peers == [] else args.peers or []))
    check_options(args.threads, args.rounds, args.max_seconds, args.batch_sizes)
    args.folders, args.baseline = named_models(args.model, args.peers, args.baseline)
    return args


def measure_all(args: argparse.Namespace) -> dict:
    """What the command line asks for.

    Returns:
        `models`: by name, `weights` ("checkpoint" or "random") and what `measure_size` or `Peer.size` gives, and
        `weights_memory_bytes` in fp32; `batches`: for each batch size the result of `measure_latency` and, with a
        baseline, `times_faster`; `baseline`.
    """
    device = PartialState().device
    models = {name: load_sampler(folder, device) for name, folder in args.folders.items()}
    sizes = {}
    for name, pipeline in models.items():
        folder = args.folders[name]
        sizes[name] = {"weights": "checkpoint", "model_sha256": folder_sha256(folder)} | measure_size(pipeline, folder)
    for name, peer in load_peers(args.peers, device).items():
        models[name], sizes[name] = peer, {"weights": "random"} | peer.size()
    for size in sizes.values():
        size["weights_memory_bytes"] = FP32_BYTES * size["params_total"]
    batches = []
    for batch_size in args.batch_sizes:
        batch = measure_latency(models, args.threads, args.rounds, args.max_seconds, batch_size, memory=True)
        if args.baseline:
            batch["times_faster"] = speed_ups(batch["models"], args.baseline)
        batches.append(batch)
    return {"models": sizes, "batches": batches} | ({"baseline": args.baseline} if args.baseline else {})


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    args = parse_arguments(argv)
    result = measure_all(args)
    keep_result("eval.latency", result, args.json)
    print(table(result))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
