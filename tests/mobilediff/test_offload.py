"""Weights that accelerate keeps elsewhere, and batches that are drawn in slices: the same pictures."""

import accelerate
import pytest
import torch

import mobilediff.sampling.networks
from tests.tiny import KINDS, tiny_pipeline

STEPS = {"teacher": 2, "student": 2, "student-8step": 8, "student-1step": 2, "student-1step-pruned": 2}


def draw(pipeline, **arguments) -> torch.Tensor:
    steps = STEPS["student" if pipeline.config.default_num_inference_steps == 50 else "student-1step"]
    if pipeline.config.default_num_inference_steps == 8:
        steps = 8
    arguments = {"prompt": ["a dog", "a cat"], "generator": torch.Generator().manual_seed(0)} | arguments
    return pipeline(num_inference_steps=steps, output_type="pt", **arguments).images


@pytest.mark.parametrize("kind", KINDS)
def test_sequential_offload(kind):
    pipeline = tiny_pipeline(kind)
    expected = draw(pipeline)
    for network in (pipeline.text_encoder, pipeline.unet, pipeline.vae):  # what enable_sequential_cpu_offload does
        accelerate.cpu_offload(network, torch.device("cpu"), offload_buffers=len(network._parameters) > 0)
    assert pipeline.text_encoder.device.type == "meta"
    for _ in range(2):
        assert torch.equal(draw(pipeline), expected)
    pipeline.forget_prompts()
    assert torch.equal(draw(pipeline), expected)


@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae"])
def test_one_offloaded_component(name):
    pipeline = tiny_pipeline("student")
    expected = draw(pipeline)
    accelerate.cpu_offload(getattr(pipeline, name), torch.device("cpu"), offload_buffers=True)
    assert torch.equal(draw(pipeline), expected)
    assert torch.equal(draw(pipeline), expected)


def test_model_offload_and_group_offload():
    for kind in ("teacher", "student-1step"):
        pipeline = tiny_pipeline(kind)
        expected = draw(pipeline)
        pipeline.enable_model_cpu_offload(device="cpu")
        for _ in range(2):
            assert torch.equal(draw(pipeline), expected)
    pipeline = tiny_pipeline("student-1step")
    pipeline.unet.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    assert torch.equal(draw(pipeline), expected)


@pytest.mark.parametrize("kind", ["student", "student-1step"])
def test_many_images_are_drawn_in_slices(kind, monkeypatch):
    """Of one prompt and of many, guided or not, with noise of one generator or one an image."""
    pipeline = tiny_pipeline(kind)
    cases = [
        lambda: {"prompt": "a dog", "num_images_per_prompt": 7},
        lambda: {"prompt": [f"a dog {i}" for i in range(7)]},
        lambda: {"prompt": ["a dog"] * 7, "generator": [torch.Generator().manual_seed(i) for i in range(7)]},
    ]
    expected = [draw(pipeline, **case()) for case in cases]
    monkeypatch.setattr(mobilediff.sampling.networks, "MAX_SLICE", 3)
    sizes, decoded = [], []
    forward, decode = pipeline.unet.forward, pipeline.vae.decode

    def count(sample, *args, **kwargs):
        sizes.append(len(sample))
        return forward(sample, *args, **kwargs)

    def count_decoded(latents, **kwargs):
        decoded.append(len(latents))
        return decode(latents, **kwargs)

    monkeypatch.setattr(pipeline.unet, "forward", count)
    monkeypatch.setattr(pipeline.vae, "decode", count_decoded)
    branches = 2 if kind == "student" else 1
    for case, image in zip(cases, expected, strict=True):
        torch.testing.assert_close(draw(pipeline, **case()), image, rtol=0, atol=1e-4)
    assert sizes == [3 * branches, 3 * branches, branches] * 2 * len(cases) and decoded == [3, 3, 1] * len(cases)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_damaged_decoder_is_no_black_picture(value):
    pipeline = tiny_pipeline("student-1step")
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias[0] = value
    for output_type in ("pil", "np", "pt"):
        with pytest.raises(ValueError, match="decoding ended in NaN or infinite pixels.*AutoencoderKL"):
            pipeline("a dog", output_type=output_type)
    assert pipeline("a dog", output_type="latent").images.isfinite().all()


def test_without_a_vae_there_are_latents_alone():
    pipeline = tiny_pipeline("student-1step")
    generator = torch.Generator().manual_seed(0)
    expected = pipeline("a dog", generator=generator, output_type="latent").images
    without = type(pipeline).from_pipe(pipeline, vae=None)
    latents = without("a dog", generator=torch.Generator().manual_seed(0), output_type="latent").images
    assert torch.equal(latents, expected)
    with pytest.raises(ValueError, match="output_type is 'pil', but this pipeline has no VAE; accepted is latent"):
        without("a dog")
