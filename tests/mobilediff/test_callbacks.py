"""What a callback sees and may change, as for diffusers' own pipelines."""

import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, SDCFGCutoffCallback

from tests.tiny import tiny_pipeline

PIPELINE = tiny_pipeline("student")


def draw(prompt="a dog", count: int = 1, **arguments) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    arguments = {"num_inference_steps": 4, "output_type": "latent"} | arguments
    return PIPELINE(prompt, num_images_per_prompt=count, generator=generator, **arguments).images


def test_guidance_is_cut_off_by_diffusers_own_callback():
    """As the guidance interval of the first half, which is exact."""
    expected = draw(guidance_interval=(0.5, 1.0))
    assert not torch.allclose(draw(), expected, atol=1e-3)
    for callback in (
        SDCFGCutoffCallback(cutoff_step_ratio=0.25),
        MultiPipelineCallbacks([SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)]),
    ):
        image = draw(callback_on_step_end=callback)
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-4)
    assert PIPELINE.guidance_scale == 0.0 and not PIPELINE.do_classifier_free_guidance
    assert torch.equal(draw(), draw())  # the next call is guided again
    assert PIPELINE.guidance_scale == 3.0 and PIPELINE.do_classifier_free_guidance


def test_the_cut_off_with_several_images():
    callback = SDCFGCutoffCallback(cutoff_step_ratio=0.25)
    expected = draw(count=3, guidance_interval=(0.5, 1.0))
    torch.testing.assert_close(draw(count=3, callback_on_step_end=callback), expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="left 1 rows of prompt_embeds; this step of 2 images takes 2"):
        draw(["a dog", "a cat"], callback_on_step_end=callback)  # it leaves the last prompt's row alone


def test_guidance_is_changed_on_the_way():
    def halve(pipeline, index, timestep, tensors):
        pipeline._guidance_scale = pipeline._guidance_scale / 2
        scales.append(pipeline.guidance_scale)

    scales = []
    assert not torch.equal(draw(callback_on_step_end=halve, guidance_scale=8.0), draw(guidance_scale=8.0))
    assert scales == [4.0, 2.0, 1.0, 0.5] and PIPELINE.num_timesteps == 4

    def raise_it(pipeline, index, timestep, tensors):
        pipeline._guidance_scale = 5.0

    with pytest.raises(ValueError, match="left 1 rows of prompt_embeds; this step of 1 images takes 2"):
        draw(callback_on_step_end=raise_it, guidance_scale=1.0)


def test_an_interrupted_call_returns_what_it_has():
    kept = []

    def stop(pipeline, index, timestep, tensors):
        kept.append(tensors["latents"])
        pipeline._interrupt = index == 1

    image = draw(callback_on_step_end=stop)
    assert len(kept) == 2 and torch.equal(image, kept[-1]) and PIPELINE.interrupt
    PIPELINE._interrupt = True  # no call is under way
    assert torch.equal(draw(), draw()) and not PIPELINE.interrupt


@pytest.mark.parametrize(
    ("names", "seen"),
    [(None, {"latents"}), ([], set()), (["latents", "prompt_embeds"], {"latents", "prompt_embeds"})],
)
def test_the_tensors_are_those_asked_for(names, seen):
    def callback(pipeline, index, timestep, tensors):
        assert set(tensors) == seen
        if "prompt_embeds" in seen:
            assert len(tensors["prompt_embeds"]) == 2  # the null prompt's in front
            return {"prompt_embeds": tensors["prompt_embeds"].flip(0)}

    image = draw(callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
    assert torch.equal(image, draw()) == ("prompt_embeds" not in seen)
