"""Measure how far samples drawn in a reduced precision are from those drawn in fp32, at the same seeds."""

from collections.abc import Sequence
from pathlib import Path

import torch

from eval.measures.fixed_latents import FixedLatents, relative_error
from eval.protocol import device_description, measured_with, tensor_sha256
from eval.samples.pipelines import load_sampler
from eval.samples.settings import resolve_settings
from mobilediff.images import to_bytes
from mobilediff.models.autoencoder import psnr
from mobilediff.pipeline import MobileDiffusionPipeline

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def measure_precision(
    folder: str | Path,
    dtypes: Sequence[str],
    n: int,
    seed: int = 0,
    batch_size: int = 100,
    device: torch.device | str = "cpu",
) -> dict:
    """Draw the same samples in fp32 and with the whole pipeline in each dtype, and compare latents and images.

    Text encoder, network, scheduler and VAE compute in the dtype. A VAE whose config has `force_upcast` decodes in
    fp32 where the dtype is fp16. Noise is drawn in fp32 and then rounded.

    Args:
        folder: of the checkpoint.
        dtypes: names in `DTYPES`.
        n: samples, classes in turn.
        seed: of the first sample.
        batch_size: samples drawn at once.
        device: that draws.

    Returns:
        `n`; `dtypes`, by name the relative error of the latents and the mean PSNR of the images, where equal ones
        count as 100 dB; `samples` of fp32; `protocol`.

    Raises:
        ValueError: a sample is not finite in one of the dtypes.
    """
    pipeline = load_sampler(folder, device)
    latents = FixedLatents(pipeline, n, seed, batch_size)
    images, figures = _decoded(pipeline, latents.expected), {}
    for name in dtypes:
        reduced = load_sampler(folder, device, DTYPES[name])
        drawn = latents.draw(reduced)
        error = relative_error(drawn, latents.expected)
        figures[name] = {"latents_error": error, "psnr": psnr(images, _decoded(reduced, drawn))}
    samples = resolve_settings(pipeline, folder, seed).protocol(n) | device_description(device)
    samples["images_sha256"] = tensor_sha256(images)
    return {"n": n, "dtypes": figures, "samples": samples, "protocol": measured_with(device)}


@torch.no_grad()
def _decoded(pipeline: MobileDiffusionPipeline, latents: torch.Tensor) -> torch.Tensor:
    """Decode normalised latents [N, C, h, w] to images, uint8 [N, 3, H, W]."""
    return to_bytes(pipeline.decode_latents(latents))
