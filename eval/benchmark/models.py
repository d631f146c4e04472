"""Measure size and speed of checkpoints, exports and peers, which take turns."""

from collections.abc import Callable, Mapping
from pathlib import Path

from eval.benchmark.latency import measure_latency, speed_ups
from eval.benchmark.peers import Peer
from eval.benchmark.size import exported_size, measure_size
from eval.protocol import folder_sha256
from mobilediff.ondevice.exported import ExportedPipeline
from mobilediff.pipeline import MobileDiffusionPipeline

FP32_BYTES = 4


def measure_models(
    pipelines: Mapping[str, MobileDiffusionPipeline | ExportedPipeline],
    folders: Mapping[str, Path],
    peers: Mapping[str, Peer],
    threads: int,
    rounds: int,
    max_seconds: float,
    batch_sizes: list[int],
    neighbours: int = 0,
    baseline: str | None = None,
    at_step: Callable | None = None,
) -> dict:
    """Measure sizes and timings of models; further arguments and errors as in `measure_latency`.

    Args:
        pipelines, folders: by name, the same names.
        peers: by name.
        batch_sizes: images of a call, one measurement each.
        baseline: name of the model with whose image time the others are compared.

    Returns:
        `models`: by name, `weights` ("checkpoint", "exported" or "random"), the counts of `measure_size`,
        `exported_size` or `Peer.size`, and but for exports `weights_memory_bytes` in fp32; `batches`: for each batch
        size the result of `measure_latency` and, with a baseline, `times_faster`; `baseline`.
    """
    sizes = {}
    for name, pipeline in pipelines.items():
        folder = folders[name]
        sha256 = {"model_sha256": folder_sha256(folder)}
        if isinstance(pipeline, ExportedPipeline):
            sizes[name] = {"weights": "exported"} | sha256 | exported_size(folder)
        else:
            sizes[name] = {"weights": "checkpoint"} | sha256 | measure_size(pipeline, folder)
    for name, peer in peers.items():
        sizes[name] = {"weights": "random"} | peer.size()
    for size in sizes.values():
        if size["weights"] != "exported":
            size["weights_memory_bytes"] = FP32_BYTES * size["params_total"]
    batches = []
    for batch_size in batch_sizes:
        options = threads, rounds, max_seconds, batch_size
        batch = measure_latency({**pipelines, **peers}, *options, memory=True, neighbours=neighbours, at_step=at_step)
        if baseline:
            batch["times_faster"] = speed_ups(batch["models"], baseline)
        batches.append(batch)
    return {"models": sizes, "batches": batches} | ({"baseline": baseline} if baseline else {})
