"""Schedulers offered for a network trained to predict v: each ends at the image that a perfect one predicts."""

from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, SchedulerMixin

from mobilediff.schedulers.compatible import choose_scheduler

OWN = (DDIMScheduler, DPMSolverMultistepScheduler)


def sampler(own: type) -> SimpleNamespace:
    trained = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    return SimpleNamespace(scheduler=own.from_config(trained.config))


def names_offered(own: type) -> list[str]:
    with pytest.raises(ValueError, match="accepted for this checkpoint are ") as refusal:
        choose_scheduler(sampler(own), "none of these")
    return str(refusal.value).rsplit("are ", 1)[1].split(", ")


@pytest.mark.parametrize("own", OWN)
def test_every_scheduler_offered_ends_at_the_perfect_prediction(own):
    image = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    offered = names_offered(own)
    assert {"DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"} <= set(offered)
    for name in offered:
        pipeline = sampler(own)
        choose_scheduler(pipeline, name)
        scheduler, alphas_cumprod = pipeline.scheduler, pipeline.scheduler.alphas_cumprod
        scheduler.set_timesteps(20)
        generator = torch.Generator().manual_seed(1)
        sample = torch.randn(image.shape, generator=generator) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            seen = scheduler.scale_model_input(sample, timestep)
            alpha, sigma = alphas_cumprod[int(timestep)].sqrt(), (1 - alphas_cumprod[int(timestep)]).sqrt()
            velocity = alpha * (seen - alpha * image) / sigma - sigma * image
            sample = scheduler.step(velocity, timestep, sample).prev_sample
        torch.testing.assert_close(sample, image, rtol=0, atol=0.05, msg=name)


@pytest.mark.parametrize("own", OWN)
def test_schedulers_with_another_schedule_or_further_calls_are_not_offered(own):
    offered = set(names_offered(own))
    assert offered.isdisjoint({"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "HeunDiscreteScheduler"})
    assert all(issubclass(getattr(diffusers, name), SchedulerMixin) for name in offered)
    with pytest.raises(ValueError, match="scheduler is 'EDMEulerScheduler'; accepted"):
        choose_scheduler(sampler(own), "EDMEulerScheduler")
