"""Draw samples with one seed an image, independent of batch and process but for rounding."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import numpy as np
import torch
from diffusers import DiffusionPipeline

from eval.samples.prompts import SamplePlan
from eval.samples.settings import DTYPES, SamplingSettings
from mobilediff.ondevice.exported import ExportedPipeline


def draw(
    pipeline: DiffusionPipeline | ExportedPipeline, name: str, seeds: list[int], dtype: str = "fp32", **arguments
) -> torch.Tensor:
    """Draw one image a seed in one call of the pipeline.

    Args:
        pipeline: returns `images`, float [B, H, W, 3] in 0..1.
        name: of the model in an error.
        seeds: B seeds, each of a generator of its own.
        dtype: "fp32", or "bf16" for autocast.
        arguments: further ones of the call, such as B prompts.

    Returns:
        uint8 [B, 3, H, W].

    Raises:
        ValueError: the pipeline does not return B RGB images in 0..1.
    """
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    autocast = nullcontext() if dtype == "fp32" else torch.autocast(pipeline.device.type, dtype=DTYPES[dtype])
    with autocast:
        # not every pipeline takes a list, and a list of one is the same noise
        generator = generators if len(seeds) > 1 else generators[0]
        output = pipeline(**arguments, generator=generator, output_type="np")  # pyright: ignore[reportCallIssue] - the base class alone
    images = _checked(getattr(output, "images", None), seeds, name)
    return torch.from_numpy((images * 255).round().astype(np.uint8).transpose(0, 3, 1, 2).copy())


def draw_samples(
    pipeline: DiffusionPipeline | ExportedPipeline,
    settings: SamplingSettings,
    plan: SamplePlan,
    indices: list[int],
    batch_size: int,
    rows: Mapping[str, torch.Tensor] | None = None,
    **options,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Draw the samples with the given indices, batch after batch; batches as in `batches_of`.

    Args:
        rows: further arguments of the pipeline's call with a row each sample of the plan, such as masks.
        options: further ones for all samples, such as a callback.

    Yields:
        Indices of a batch and its images, uint8 [B, 3, H, W].

    Raises:
        ValueError: `batch_size` is below 1, or as in `draw`.
    """
    drawn = 0
    for batch in batches_of(indices, batch_size, settings.compiled):
        seeds, arguments = [settings.seed + index for index in batch], settings.call_arguments(plan, batch)
        arguments |= {name: values[batch] for name, values in (rows or {}).items()}
        images = draw(pipeline, settings.model, seeds, settings.dtype, **arguments, **options)
        kept = batch[: len(indices) - drawn]
        drawn += len(kept)
        yield kept, images[: len(kept)]


def batches_of(indices: list[int], batch_size: int, compiled: bool) -> list[list[int]]:
    """Split indices into batches; a compiled network gets all of one size, the last filled with its last index.

    Raises:
        ValueError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; accepted is 1 or more")
    batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    if compiled and batches:  # another size would be compiled anew, for about a minute
        batches[-1] = batches[-1] + batches[-1][-1:] * (len(batches[0]) - len(batches[-1]))
    return batches


def _checked(images: np.ndarray | None, seeds: list[int], name: str) -> np.ndarray:
    """Return float32 [B, H, W, 3], or raise an error with the model and the returned value."""
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[::3] != (len(seeds), 3):
        returned = images.shape if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{name} returned {returned} for {len(seeds)} samples; expected RGB images [B, H, W, 3]")
    inside = ((images >= 0) & (images <= 1)).all(axis=(1, 2, 3))  # false for values that are not finite
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        low, high = images[row].min(), images[row].max()
        raise ValueError(f"{name} drew a sample with values from {low} to {high}, not 0..1: seed {seeds[row]}")
    return images.astype(np.float32)
