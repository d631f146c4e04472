"""The contract of every kind of pipeline: each of its tests runs over all of them."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from mobilediff.export import export_pipeline
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.schedulers import DistilledDDIMScheduler, UFOGenScheduler
from tests.generators import generator, generators
from tests.tiny import KINDS, LATENT_CHANNELS, LATENT_SIZE, tiny_pipeline

STEPS = {DDIMScheduler: 2, DistilledDDIMScheduler: 8, UFOGenScheduler: 2}
NETWORKS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def pipeline(kind) -> MobileDiffusionPipeline:
    return tiny_pipeline(kind)


def steps_of(pipeline: MobileDiffusionPipeline) -> int:
    return STEPS[type(pipeline.scheduler)]


def draw(pipeline, prompt="a photo of a cat", output_type="latent", **options):
    return pipeline(prompt, num_inference_steps=steps_of(pipeline), output_type=output_type, **options).images


class TestPipelineContract:
    def test_images_of_one_prompt_stand_side_by_side(self, pipeline):
        prompts = ["a photo of a cat", "a photo of a ship"]
        images = draw(pipeline, prompts, num_images_per_prompt=2, generator=generators(0, 1, 2, 3))
        assert images.shape == (4, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        repeated = draw(pipeline, [prompts[0]] * 2 + [prompts[1]] * 2, generator=generators(0, 1, 2, 3))
        torch.testing.assert_close(images, repeated)

    def test_output_types_show_the_same_image(self, pipeline):
        latents, tensors, arrays, images = (
            draw(pipeline, output_type=output_type, generator=generator(0))
            for output_type in ("latent", "pt", "np", "pil")
        )
        assert latents.shape == (1, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        assert tensors.shape == (1, 3, 32, 32) and 0 <= tensors.min() and tensors.max() <= 1
        np.testing.assert_array_equal(arrays, tensors.permute(0, 2, 3, 1).numpy())
        assert isinstance(images[0], Image.Image)
        np.testing.assert_array_equal(np.asarray(images[0]), (arrays[0] * 255).round().astype("uint8"))

    def test_list_of_generators_equals_single_draws(self, pipeline):
        together = draw(pipeline, num_images_per_prompt=2, generator=generators(3, 4))
        alone = torch.cat([draw(pipeline, generator=generator) for generator in generators(3, 4)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(together[0], together[1], atol=1e-2)

    def test_a_checkpoint_keeps_configs_weights_in_float16_and_what_they_draw(self, kind, pipeline, tmp_path):
        loaded = MobileDiffusionPipeline.from_pretrained(export_pipeline(pipeline, tmp_path / "checkpoint"))
        loaded.set_progress_bar_config(disable=True)
        rounded = tiny_pipeline(kind)
        for name in NETWORKS:
            for parameter in getattr(rounded, name).parameters():
                parameter.data = parameter.data.half().float()
            # read from a file they lie at addresses of no alignment, for which products of matrices round otherwise
            for parameter in getattr(loaded, name).parameters():
                parameter.data = parameter.data.clone()
            tensors, expected = getattr(loaded, name).state_dict(), getattr(rounded, name).state_dict()
            assert set(tensors) == set(expected)
            assert [key for key, tensor in expected.items() if not torch.equal(tensors[key], tensor)] == []
        for name in ("default_num_inference_steps", "default_guidance_scale", "guidance_distilled", "nouns"):
            assert loaded.config[name] == rounded.config[name]
        assert type(loaded.scheduler) is type(rounded.scheduler)
        assert torch.equal(*(draw(one, generator=generator(5)) for one in (loaded, rounded)))

    def test_callback_sees_every_step_and_may_replace_latents(self, pipeline):
        seen = []

        def callback(_, step, timestep, tensors):
            seen.append((step, int(timestep)))
            return {"latents": torch.zeros_like(tensors["latents"])}

        latents = draw(pipeline, generator=generator(0), callback_on_step_end=callback)
        assert seen == list(enumerate(pipeline.scheduler.timesteps.tolist()))
        assert len(seen) == steps_of(pipeline) and not latents.any()

    def test_return_dict_false_gives_a_tuple(self, pipeline):
        (latents,) = pipeline(
            "a photo of a cat",
            num_inference_steps=steps_of(pipeline),
            output_type="latent",
            generator=generator(0),
            return_dict=False,
        )
        assert torch.equal(latents, draw(pipeline, generator=generator(0)))
