"""The graphs, run by PyTorch, against the pipeline and its schedulers."""

import numpy as np
import pytest
import torch

from mobilediff.models.variants import variant
from mobilediff.ondevice.graphs import build_graphs, check_control, check_exportable, is_fused, schedule
from mobilediff.ondevice.manifest import CONTROL, noise_count
from mobilediff.ondevice.sampling import draw
from mobilediff.sampling.prompts import encode_text
from tests.tiny import tiny_control, tiny_pipeline

PROMPTS = ["a photo of a cat", "a photo of a ship", "a photo of a deer"]


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]


@torch.no_grad()
def largest_difference(pipeline, steps, conditions=None, scale=1.0) -> float:
    """Compare the graphs' pictures with the pipeline's, in [0, 1]."""
    arguments = {}
    if conditions is not None:
        edges, colors, *_ = conditions
        arguments = {"image": edges, "color_map": colors / 2 + 0.5, "controlnet_conditioning_scale": scale}
    expected = pipeline(
        PROMPTS, num_inference_steps=steps, generator=generators(), output_type="pt", **arguments
    ).images
    coefficients = schedule(pipeline, steps)
    graphs = {graph.name: graph for graph in build_graphs(pipeline, coefficients, len(PROMPTS))}
    # the order in which one generator an image is drawn from
    noises = zip(
        *([torch.randn(4, 16, 16, generator=one) for _ in range(noise_count(coefficients))] for one in generators()),
        strict=True,
    )
    noise = torch.cat([torch.stack(rows) for rows in noises])

    def run(name, inputs):
        assert [list(value.shape) for value in inputs.values()] == [
            list(example.shape) for example in graphs[name].inputs.values()
        ]
        return [graphs[name].module(*map(torch.from_numpy, inputs.values())).numpy()]

    hidden_states, pooled = encode_text(pipeline.tokenizer, pipeline.text_encoder, PROMPTS)
    control = {}
    if conditions is not None:
        planes = pipeline.controlnet.join_conditions(*conditions)
        control = dict(zip(CONTROL, (planes.numpy(), np.array([scale], dtype=np.float32)), strict=True))
    images = draw(run, coefficients, is_fused(pipeline), noise.numpy(), hidden_states.numpy(), pooled.numpy(), control)
    return np.abs((images / 2 + 0.5).clip(0, 1) - expected.numpy()).max()


@pytest.mark.parametrize(
    ("kind", "steps"), [("student-1step", 1), ("student-1step", 2), ("student-1step-pruned", 4), ("student-8step", 8)]
)
def test_the_graphs_draw_the_pipelines_pictures(kind, steps):
    assert largest_difference(tiny_pipeline(kind), steps) <= 2e-5


@pytest.mark.parametrize(("steps", "scale"), [(1, 1.0), (1, 0.5), (1, 0), (2, 0.5)])
def test_a_controlled_graph_draws_the_pipelines_pictures(steps, scale):
    generator = torch.Generator().manual_seed(5)
    edges = (torch.rand(3, 1, 32, 32, generator=generator) > 0.9).float()
    colors = 2 * torch.rand(3, 3, 8, 8, generator=generator) - 1
    conditions = edges, colors, torch.ones(3), torch.ones(3)
    assert largest_difference(tiny_control(), steps, conditions, scale) <= 2e-5


@pytest.mark.parametrize(("kind", "steps"), [("student-1step", 4), ("student-8step", 8)])
def test_coefficients_are_those_of_the_scheduler(kind, steps):
    scheduler = tiny_pipeline(kind).scheduler
    scheduler.set_timesteps(steps)
    sample, velocity = torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for step, timestep in zip(schedule(tiny_pipeline(kind), steps), scheduler.timesteps, strict=True):
        assert step.timestep == timestep
        arguments = {"generator": torch.Generator().manual_seed(1)} if kind == "student-1step" else {}
        expected = scheduler.step(velocity, timestep, sample, return_dict=False, **arguments)[0]
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
        found = step.sample_scale * sample + step.velocity_scale * velocity + step.noise_scale * noise
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", ["litert", "executorch"])
def test_a_control_network_in_another_format_is_refused(format):
    with pytest.raises(ValueError, match=f"format is '{format}'; a checkpoint with a control network has onnx"):
        check_control(tiny_control(), format)
    check_control(tiny_control(), "onnx")
    check_control(tiny_pipeline("student-1step"), format)


def test_a_control_network_outside_of_a_fused_graph_is_refused():
    with pytest.raises(ValueError, match="scheduler is DistilledDDIMScheduler; with a control network"):
        check_control(tiny_control("student-8step"), "onnx")


def test_a_checkpoint_with_guidance_is_refused():
    with pytest.raises(ValueError, match="guidance_distilled is False"):
        check_exportable(tiny_pipeline("teacher"), 1)


def test_a_network_that_sees_masks_is_refused():
    pipeline = tiny_pipeline("student-1step")
    pipeline.unet = variant(pipeline.unet, in_channels=9)
    with pytest.raises(ValueError, match="takes 9 channels and returns 4; accepted are those that see latents alone"):
        check_exportable(pipeline, 1)


@pytest.mark.parametrize("batch_size", [0, 65])
def test_a_batch_size_out_of_range_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}; accepted is 1 to 64"):
        check_exportable(tiny_pipeline("student-1step"), batch_size)


@pytest.mark.parametrize(("kind", "steps"), [("student-1step", 3), ("student-8step", 4)])
def test_steps_that_the_checkpoint_is_not_for_are_refused(kind, steps):
    with pytest.raises(ValueError, match=f"num_inference_steps is {steps}"):
        schedule(tiny_pipeline(kind), steps)


def test_another_prediction_type_is_refused():
    pipeline = tiny_pipeline("student-1step")
    pipeline.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(ValueError, match="prediction_type is 'sample'"):
        check_exportable(pipeline, 1)
