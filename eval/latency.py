"""Parameters, multiply-accumulates, file size and latency of checkpoints, at batch 1.

    python -m eval.latency --model checkpoints/student-1step checkpoints/teacher --threads 2 --baseline teacher

After a warm-up the models take turns, so that a drift of the machine hits all alike; of two calls in a row the second
is timed. Parts: text encoder (one prompt), network call (one sample, unguided), decoder, and image (the whole pipeline
at its default steps and guidance). The machine's matrix-product peak is measured in the same run.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn
from tqdm import tqdm

from eval.inputs import show_result
from eval.protocol import folder_sha256, measured_with
from eval.sampling import load_sampler
from mobilediff.models.macs import count_params_and_macs
from mobilediff.pipeline import encode_text

PROMPT = "a photo of a fire truck"
PARTS = ("text_encoder", "network_call", "vae_decoder", "image")
WARM_UP = 2
TIMED = "the second of two calls in a row"
MATRIX_SIZE = 2048
MATRIX_RUNS = 5


class LatentDecoder(nn.Module):
    """The half of a VAE that sampling uses: latents [B, C, h, w] -> images [B, 3, H, W]."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.post_quant_conv = vae.post_quant_conv or nn.Identity()
        self.decoder = vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(latents))


def network_inputs(pipeline) -> dict[str, torch.Tensor]:
    """The arguments of one network call for one sample."""
    config = pipeline.unet.config
    height, width = (config.sample_size,) * 2 if isinstance(config.sample_size, int) else config.sample_size
    hidden_states, pooled = encode_text(pipeline.tokenizer, pipeline.text_encoder, [PROMPT])
    return {
        "sample": torch.zeros(1, config.in_channels, height, width, device=pipeline.device),
        "timestep": torch.tensor([500], device=pipeline.device),
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


def timed_parts(pipeline) -> dict[str, Callable[[], object]]:
    """One call of each part, ready to be timed."""
    inputs = network_inputs(pipeline)
    decoder = LatentDecoder(pipeline.vae)
    generator = torch.Generator("cpu")
    return {
        "text_encoder": lambda: encode_text(pipeline.tokenizer, pipeline.text_encoder, [PROMPT]),
        "network_call": lambda: pipeline.unet(**inputs),
        "vae_decoder": lambda: decoder(inputs["sample"]),
        "image": lambda: pipeline(prompt=PROMPT, generator=generator.manual_seed(0)),
    }


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call, all its work on the device included."""
    wait = torch.get_device_module(device).synchronize if device.type != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def summary(times: list[float]) -> dict:
    """Median and 90th percentile in milliseconds, and the number of runs."""
    ordered = sorted(times)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return {"median_ms": 1000 * statistics.median(ordered), "p90_ms": 1000 * p90, "runs": len(ordered)}


def matrix_peak(device: torch.device) -> dict:
    """Best rate of a square matrix product, in GFLOP/s, by dtype."""
    peaks = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device).to(dtype) for _ in range(2))
        left @ right  # warm-up
        best = min(seconds(lambda left=left, right=right: left @ right, device) for _ in range(MATRIX_RUNS))
        peaks[f"matrix_peak_{name}_gflops"] = 2 * MATRIX_SIZE**3 / best / 1e9
    return peaks


@contextmanager
def thread_count(threads: int):
    """Runs the block on that many threads of the CPU.

    Raises:
        ValueError: fewer than 1.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; accepted is 1 or more")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def measure_latency(pipelines: dict[str, object], threads: int = 2, rounds: int = 20, max_seconds: float = 60) -> dict:
    """Time every part of every pipeline, taking turns.

    Args:
        pipelines: by name, all on one device.
        threads: of the CPU.
        rounds: runs of each part; at least 3.
        max_seconds: a part that has taken longer than this in all sits out, with at least 3 runs.

    Returns:
        `models`: by name, each part's `median_ms`, `p90_ms`, `runs`, and `share_of_peak` (fp32) of the network call;
        `protocol`: the machine's peaks, device, threads and versions.

    Raises:
        ValueError: no pipelines, too few rounds or threads.
    """
    if not pipelines or rounds < 3:
        raise ValueError(f"{len(pipelines)} models in {rounds} rounds; accepted are 1 or more in 3 or more")
    device = next(iter(pipelines.values())).device
    with thread_count(threads):
        calls = {(name, part): call for name, pipe in pipelines.items() for part, call in timed_parts(pipe).items()}
        for call in calls.values():
            for _ in range(WARM_UP):
                call()
        peaks = matrix_peak(device)
        times = {key: [] for key in calls}
        for done in tqdm(range(rounds), desc="latency", unit="round"):
            for key, call in calls.items():
                if done < 3 or sum(times[key]) < max_seconds:
                    call()  # untimed: the model before it has filled the caches with its own weights
                    times[key].append(seconds(call, device))
        result = {name: {part: summary(times[name, part]) for part in PARTS} for name in pipelines}
        protocol = {"batch_size": 1, "dtype": "fp32", "warm_up": WARM_UP, "rounds": rounds, "max_seconds": max_seconds}
        protocol |= {"timed": TIMED}
        protocol |= {"interleaved_with": list(pipelines)} | peaks | measured_with(device)
    for name, pipeline in pipelines.items():
        macs = count_params_and_macs(pipeline.unet, network_inputs(pipeline))[1]
        rate = 2 * macs / result[name]["network_call"]["median_ms"] / 1e6
        result[name]["network_call"]["share_of_peak"] = rate / peaks["matrix_peak_fp32_gflops"]
    return {"models": result, "protocol": protocol}


def speed_ups(models: dict, baseline: str) -> dict[str, float]:
    """How many times faster than the baseline each model makes an image, by medians.

    Raises:
        ValueError: the baseline was not measured.
    """
    if baseline not in models:
        raise ValueError(f"baseline is {baseline!r}; measured are {', '.join(models)}")
    reference = models[baseline]["image"]["median_ms"]
    return {name: reference / parts["image"]["median_ms"] for name, parts in models.items()}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.latency", description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", required=True, help="checkpoint folders")
    parser.add_argument("--baseline", help="a checkpoint folder that speed is compared with")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each part")
    parser.add_argument("--max-seconds", type=float, default=60, help="a part that took longer in all sits out")
    parser.add_argument("--json", help="also write the result to this file")
    args = parser.parse_args(argv)
    named = [*args.model, *([args.baseline] if args.baseline else [])]
    folders = dict.fromkeys(Path(folder).resolve() for folder in named)
    by_name = {folder.name: folder for folder in folders}
    if len(by_name) < len(folders):
        raise ValueError(f"two of {', '.join(map(str, folders))} have one name; accepted are different names")
    pipelines = {name: load_sampler(folder, PartialState().device) for name, folder in by_name.items()}
    result = measure_latency(pipelines, args.threads, args.rounds, args.max_seconds)
    for name, pipeline in pipelines.items():
        sizes = {"model_sha256": folder_sha256(by_name[name])} | measure_size(pipeline, by_name[name])
        result["models"][name] = sizes | result["models"][name]
    if args.baseline:
        baseline = Path(args.baseline).resolve().name
        result |= {"baseline": baseline, "times_faster": speed_ups(result["models"], baseline)}
    show_result(result, args.json)
    for name, record in result["models"].items():
        parts = ", ".join(f"{part} {record[part]['median_ms']:.2f}/{record[part]['p90_ms']:.2f} ms" for part in PARTS)
        print(f"{name}: NFE {record['nfe']}, {record['params_total'] / 1e6:.2f} M params, median/p90: {parts}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
