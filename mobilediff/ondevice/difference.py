"""How far exported pictures are from the PyTorch pipeline's."""

from typing import Any

import numpy as np
import torch

from mobilediff.captions import caption
from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.ondevice.conditions import drawn_conditions
from mobilediff.ondevice.exported import ExportedPipeline
from mobilediff.ondevice.manifest import Parity
from mobilediff.pipeline import MobileDiffusionPipeline

# Largest difference of a value in [-1, 1]; int8 is judged by its distance and accuracy instead.
ACCEPTED = {"fp32": 1e-4, "fp16": 0.02}


def measure_parity(pipeline: MobileDiffusionPipeline, exported: ExportedPipeline, images: int) -> Parity:
    """Draw the same pictures with both, seed i of noun i as they are spread over the table, and compare in [-1, 1].

    With a control network each picture has the edges and colours of another one, which that noun and a seed of its own
    give without control.

    Raises:
        ValueError: `images` is below 1 or over the number of nouns, or an exported picture holds NaN.
    """
    plan = exported.plan
    names = plan.nouns.names
    if not 1 <= images <= len(names):
        raise ValueError(f"images is {images}; accepted is 1 to {len(names)}, the number of nouns")
    nouns = [names[index * len(names) // images] for index in range(images)]
    prompts = [caption(noun, plan.nouns.template) for noun in nouns]

    def generators(first: int = 0) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(first + index) for index in range(images)]

    control: dict[str, Any] = {}
    if isinstance(pipeline, MobileDiffusionControlPipeline):
        control = drawn_conditions(pipeline, prompts, plan.num_inference_steps, generators(images))
    expected = pipeline(
        prompt=prompts,
        num_inference_steps=plan.num_inference_steps,
        generator=generators(),
        output_type="pt",
        **control,
    ).images
    conditions = exported.read_conditions(images, control.get("image"), control.get("color_map"))
    noise = exported.draw_noise(images, generators())
    differences = []
    for embeddings in (map(exported.encode, prompts), (exported.noun_embeddings[noun] for noun in nouns)):
        hidden_states, pooled = map(np.stack, zip(*embeddings, strict=True))
        pictures = exported.draw(noise, hidden_states, pooled, conditions).clip(-1, 1)
        if not np.isfinite(pictures).all():
            raise ValueError(f"a picture of {plan.model} in {plan.format} and {plan.precision} is not finite")
        differences.append(np.abs(pictures - (2 * expected.numpy() - 1)))
    by_encoder, by_table = differences
    return Parity(
        images=images,
        largest=float(by_encoder.max()),
        mean=float(by_encoder.mean()),
        largest_with_noun_table=float(by_table.max()),
    )
