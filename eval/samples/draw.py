"""Draw samples, one seed an image, so that but for rounding an image does not depend on its batch or process."""

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from diffusers import DiffusionPipeline

from eval.samples.prompts import SamplePlan
from eval.samples.settings import DTYPES, SamplingSettings


def draw_samples(
    pipeline: DiffusionPipeline,
    settings: SamplingSettings,
    plan: SamplePlan,
    indices: list[int],
    batch_size: int,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Draw the samples with the given indices.

    Yields:
        A batch's indices and its images, uint8 [B, 3, H, W].

    Raises:
        ValueError: `batch_size` is below 1, or what the pipeline returns are not RGB images in 0..1, one a prompt.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; accepted is 1 or more")
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        generators = [torch.Generator("cpu").manual_seed(settings.seed + index) for index in batch]
        autocast = nullcontext()
        if settings.dtype != "fp32":
            autocast = torch.autocast(pipeline.device.type, dtype=DTYPES[settings.dtype])
        with autocast:
            output = pipeline(
                **settings.call_arguments(plan, batch),
                # not every pipeline takes a list, and a list of one is the same noise
                generator=generators if len(batch) > 1 else generators[0],
                output_type="np",
            )
        images = _checked(getattr(output, "images", None), batch, settings.model)
        yield batch, torch.from_numpy((images * 255).round().astype(np.uint8).transpose(0, 3, 1, 2).copy())


def _checked(images: np.ndarray | None, batch: list[int], model: str) -> np.ndarray:
    """float32 [B, H, W, 3], or an error that names the model and what it returned."""
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[::3] != (len(batch), 3):
        returned = images.shape if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{model} returned {returned} for {len(batch)} samples; expected RGB images [B, H, W, 3]")
    inside = ((images >= 0) & (images <= 1)).all(axis=(1, 2, 3))  # false for what is not finite
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        low, high = images[row].min(), images[row].max()
        raise ValueError(f"{model} drew a sample with values from {low} to {high}, not 0..1: index {batch[row]}")
    return images.astype(np.float32)
