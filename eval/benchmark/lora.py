"""Time pictures without a LoRA, with it, and with it fused into the weights."""

import torch

from eval.benchmark.latency import interleave
from eval.samples.loras import with_loras
from mobilediff.timing import summary

ROUNDS, MAX_SECONDS = 40, 20.0


def picture_times(model: str, lora: str) -> dict[str, float]:
    """Time a picture without the LoRA, with it, and with it fused into the weights: medians, in milliseconds."""
    pipelines = {"plain": with_loras(model, []), "lora": with_loras(model, [lora]), "fused": with_loras(model, [lora])}
    pipelines["fused"].fuse_lora()
    pipelines["fused"].unload_lora_weights()
    calls = {
        name: (lambda pipeline=pipeline: pipeline(class_labels="ship", generator=torch.Generator().manual_seed(0)))
        for name, pipeline in pipelines.items()
    }
    times = interleave(calls, torch.device("cpu"), ROUNDS, MAX_SECONDS)
    return {name: summary(values)["median_ms"] for name, values in times.items()}
