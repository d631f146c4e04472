"""Image to image, with every kind of pipeline."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

from mobilediff.downstream.img2img import MobileDiffusionImg2ImgPipeline
from mobilediff.pipeline import MobileDiffusionPipeline
from tests.generators import generator, generators
from tests.mobilediff.downstream.pictures import pictures
from tests.tiny import KINDS, tiny_pipeline

PROMPTS = ["a cat", "a ship"]


def edited(kind: str) -> MobileDiffusionImg2ImgPipeline:
    pipeline = MobileDiffusionImg2ImgPipeline.from_pipe(tiny_pipeline(kind))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline, prompt="a cat", image=None, **arguments) -> torch.Tensor:
    image = pictures(1) if image is None else image
    return pipeline(prompt, image, output_type="pt", **{"generator": generator(0)} | arguments).images


@pytest.mark.parametrize("kind", KINDS)
def test_a_higher_strength_leaves_less_of_the_image(kind):
    pipeline, images = edited(kind), pictures(2)
    steps = {"student-8step": 8}.get(kind, 4)
    noise = {"generator": generators(0, 1), "num_inference_steps": steps}
    results = {
        s: draw(pipeline, PROMPTS, images, strength=s, **noise | {"generator": generators(0, 1)})
        for s in (0.25, 0.5, 1)
    }
    assert pipeline.num_timesteps == steps
    other = {
        s: draw(pipeline, PROMPTS, pictures(2, 1), strength=s, **noise | {"generator": generators(0, 1)})
        for s in results
    }
    changes = [(results[s] - other[s]).abs().mean().item() for s in (0.25, 0.5, 1)]
    assert changes[0] > changes[1] > changes[2] == 0


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_schedulers_start_in_the_middle(scheduler):
    pipeline = edited("student")
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    seen = []
    draw(
        pipeline,
        strength=0.5,
        num_inference_steps=6,
        callback_on_step_end=lambda pipeline, index, t, tensors: seen.append(float(t)),
    )
    expected = scheduler.from_config(pipeline.scheduler.config)
    expected.set_timesteps(6)
    assert seen == expected.timesteps[3:].tolist() and pipeline.num_timesteps == 3
    assert pipeline.scheduler.num_inference_steps is None  # stays as it is, for other threads


def test_the_noised_image_is_that_of_the_forward_process():
    pipeline, image, seen = edited("student-1step"), pictures(1), []
    predict = pipeline._predict

    def watched(latents, t, *arguments):
        seen.append((latents, int(t)))
        return predict(latents, t, *arguments)

    pipeline._predict = watched
    draw(pipeline, image=image, strength=0.25)
    (noised, t) = seen[0]
    assert len(seen) == 1 and t == 249
    vae = pipeline.vae
    clean = (
        vae.encode(2 * image - 1).latent_dist.mean - torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1)
    ) / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1)
    noise = torch.randn(clean.shape, generator=generator(0))
    torch.testing.assert_close(noised, pipeline.scheduler.add_noise(clean, noise, torch.tensor([t])))


@pytest.mark.parametrize(("strength", "start"), [(0.25, 249), (0.3, 249), (0.5, 499), (0.8, 749), (1.0, 999)])
def test_a_one_step_student_takes_one_step_from_one_of_its_timesteps(strength, start):
    pipeline, seen = edited("student-1step"), []
    draw(pipeline, strength=strength, callback_on_step_end=lambda pipeline, i, t, tensors: seen.append(int(t)))
    assert seen == [start] and pipeline.num_timesteps == 1
    seen.clear()
    draw(
        pipeline,
        strength=strength,
        num_inference_steps=4,
        callback_on_step_end=lambda pipeline, i, t, tensors: seen.append(int(t)),
    )
    assert seen == [t for t in (999, 749, 499, 249) if t <= start]


def test_one_image_serves_all_prompts_and_all_their_images():
    pipeline, image = edited("student-1step"), pictures(1)
    together = draw(pipeline, PROMPTS, image, num_images_per_prompt=2, strength=0.5, generator=generators(0, 1, 2, 3))
    alone = [draw(pipeline, PROMPTS[i // 2], image, strength=0.5, generator=generators(i)) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 0.1}, "strength is 0.1, which leaves none of 4 steps; accepted: 0.25 to 1"),
        (
            {"strength": 0.4, "num_inference_steps": 2},
            "strength is 0.4, which leaves none of 2 steps; accepted: 0.5 to 1",
        ),
        ({"strength": float("nan")}, "strength is nan, accepted"),
        ({"strength": 0.5, "num_inference_steps": 3}, "num_inference_steps is 3"),
        ({"image": pictures(3), "prompt": PROMPTS}, "image holds 3, accepted: one, or one for each of 2 prompts"),
        ({"image": pictures(1)[..., :16, :16]}, "image is 16 x 16 pixels, accepted: 32 x 32 pixels"),
        ({"prompt": None}, "pass either prompt or class_labels"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(arguments, message, monkeypatch):
    pipeline = edited("student-1step")
    monkeypatch.setattr(pipeline.vae, "encode", None)
    monkeypatch.setattr(pipeline, "text_encoder", pipeline.text_encoder)
    monkeypatch.setattr(pipeline, "encode_prompt", None)
    with pytest.raises(ValueError, match=message):
        draw(pipeline, **arguments)


def test_a_pipeline_without_a_vae_is_refused():
    pipeline = MobileDiffusionImg2ImgPipeline.from_pipe(tiny_pipeline("student-1step"), vae=None)
    with pytest.raises(ValueError, match="this pipeline has no VAE"):
        pipeline("a cat", pictures(1), output_type="latent")


def test_a_pipeline_made_back_draws_as_before():
    plain = tiny_pipeline("student-1step")
    expected = plain("a cat", generator=generator(0), output_type="pt").images
    back = MobileDiffusionPipeline.from_pipe(MobileDiffusionImg2ImgPipeline.from_pipe(plain))
    assert torch.equal(back("a cat", generator=generator(0), output_type="pt").images, expected)
