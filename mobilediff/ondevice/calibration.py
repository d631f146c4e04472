"""Inputs that a quantiser sees: training captions, and noises whose seeds no measurement uses."""

import random

import numpy as np
import torch

from mobilediff.captions import CaptionBank
from mobilediff.downstream.control import MobileDiffusionControlPipeline, read_conditions
from mobilediff.ondevice.conditions import drawn_conditions
from mobilediff.ondevice.graphs import Graph
from mobilediff.ondevice.manifest import CONTROL, Step, noise_count
from mobilediff.ondevice.sampling import draw
from mobilediff.pipeline import MobileDiffusionPipeline

SEED = 2**31  # measurements count their seeds from 0
BATCHES = 64
# Conditions of the batches in turn: both, edges alone, colours alone.
GIVEN = (("image", "color_map"), ("image",), ("color_map",))


@torch.no_grad()
def calibration_inputs(
    pipeline: MobileDiffusionPipeline, graphs: list[Graph], steps: list[Step], fused: bool
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Draw `BATCHES` batches with the unconverted graphs and note what each graph is given.

    Returns:
        By graph, its inputs of every call.
    """
    modules = {graph.name: graph for graph in graphs}
    noted = {graph.name: [] for graph in graphs}

    def run(name: str, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        noted[name].append(inputs)
        outputs = modules[name].module(*map(torch.from_numpy, inputs.values()))
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    batch_size = len(next(graph for graph in graphs if "pooled" in graph.inputs).inputs["pooled"])
    _, *latent_shape = pipeline._latent_shape(batch_size)
    generator, choice = torch.Generator().manual_seed(SEED), random.Random(SEED)
    captions = CaptionBank(pipeline.config.null_prompt, num_phrasings=4).texts
    length = pipeline.tokenizer.model_max_length
    for batch in range(BATCHES):
        embeddings, prompts = [], choice.sample(captions, batch_size)
        for prompt in prompts:
            ids = pipeline.tokenizer(
                prompt, padding="max_length", max_length=length, truncation=True, return_tensors="np"
            ).input_ids
            embeddings.append(run("text_encoder", {"input_ids": ids.astype(np.int32)}))
        hidden_states, pooled = map(np.concatenate, zip(*embeddings, strict=True))
        control = {}
        if isinstance(pipeline, MobileDiffusionControlPipeline):
            control = _control(pipeline, prompts, len(steps), generator, GIVEN[batch % len(GIVEN)])
        noise = torch.randn(noise_count(steps) * batch_size, *latent_shape, generator=generator).numpy()
        draw(run, steps, fused, noise, hidden_states, pooled, control)
    return noted


def _control(
    pipeline: MobileDiffusionControlPipeline,
    prompts: list[str],
    num_inference_steps: int,
    generator: torch.Generator,
    given: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Draw the further inputs of a controlled image graph: conditions of those kinds, at a scale of one."""
    drawn = drawn_conditions(pipeline, prompts, num_inference_steps, generator)
    image, color_map = (drawn[name] if name in given else None for name in GIVEN[0])
    size = pipeline.controlnet.condition_size
    conditions = pipeline.controlnet.join_conditions(*read_conditions(image, color_map, size))
    return dict(zip(CONTROL, (conditions.numpy(), np.ones(1, dtype=np.float32)), strict=True))
