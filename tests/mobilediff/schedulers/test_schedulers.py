import math

import pytest
import torch
from diffusers import DDIMScheduler

from mobilediff.schedulers import DistilledDDIMScheduler, UFOGenScheduler

SHAPE = (2, 4, 3, 3)


def noise(seed: int, shape=SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosine_alpha_cumprod(timestep: int, length: int = 1000) -> float:
    """Nichol & Dhariwal's schedule (arXiv 2102.09672, eq. 17), each beta capped at 0.999, in plain Python."""

    def bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    product = 1.0
    for i in range(timestep + 1):
        product *= 1 - min(1 - bar((i + 1) / length) / bar(i / length), 0.999)
    return product


def velocity(x0: torch.Tensor, eps: torch.Tensor, alpha_bar: float) -> torch.Tensor:
    return math.sqrt(alpha_bar) * eps - math.sqrt(1 - alpha_bar) * x0


@pytest.mark.parametrize("scheduler", [UFOGenScheduler(), DistilledDDIMScheduler()])
@pytest.mark.parametrize("timestep", [0, 499, 999])
def test_the_noise_schedule_is_the_cosine_one(scheduler, timestep):
    expected = cosine_alpha_cumprod(timestep)
    assert float(scheduler.alphas_cumprod[timestep]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("steps", "timesteps"), [(1, [999]), (2, [999, 499]), (4, [999, 749, 499, 249])])
def test_ufogen_timesteps_trail_from_the_last_one(steps, timesteps):
    scheduler = UFOGenScheduler()
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == timesteps
    assert scheduler.init_noise_sigma == 1.0
    assert torch.equal(scheduler.scale_model_input(noise(0), 999), noise(0))


def test_ufogen_step_by_hand():
    """At t = 499 of two steps x_0 comes back; at t = 999 it is noised to 499 with the generator's own noise."""
    scheduler = UFOGenScheduler()
    scheduler.set_timesteps(2)
    x0, eps = noise(1), noise(2)
    for timestep, next_alpha_bar in ((999, cosine_alpha_cumprod(499)), (499, 1.0)):
        alpha_bar = cosine_alpha_cumprod(timestep)
        sample = math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * eps
        output = velocity(x0, eps, alpha_bar)
        step = scheduler.step(output, timestep, sample, generator=torch.Generator().manual_seed(3))
        expected = math.sqrt(next_alpha_bar) * x0 + math.sqrt(1 - next_alpha_bar) * noise(3)
        torch.testing.assert_close(step.pred_original_sample, x0, rtol=0, atol=1e-5)
        torch.testing.assert_close(step.prev_sample, expected, rtol=0, atol=1e-5)


def test_ufogen_noise_is_drawn_from_each_images_own_generator():
    scheduler = UFOGenScheduler()
    scheduler.set_timesteps(4)

    def step(rows: list[int]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(10 + row) for row in rows]
        return scheduler.step(noise(1)[rows], 749, noise(2)[rows], generator=generators, return_dict=False)[0]

    both = step([0, 1])
    torch.testing.assert_close(step([0]), both[:1], rtol=0, atol=0)
    torch.testing.assert_close(step([1, 0]), both.flip(0), rtol=0, atol=0)
    assert not torch.allclose(both[0], both[1])


def test_ufogen_forward_process_is_that_of_diffusers():
    reference = DDIMScheduler(beta_schedule="squaredcos_cap_v2")
    timesteps = torch.tensor([3, 700])
    for name in ("add_noise", "get_velocity"):
        ours = getattr(UFOGenScheduler(), name)(noise(1), noise(2), timesteps)
        assert torch.equal(ours, getattr(reference, name)(noise(1), noise(2), timesteps))


@pytest.mark.parametrize("steps", [4, 8])
def test_distilled_ddim_is_diffusers_ddim_where_steps_divide_the_timesteps(steps):
    ours = DistilledDDIMScheduler(distilled_num_inference_steps=[4, 8])
    reference = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    ours.set_timesteps(steps)
    reference.set_timesteps(steps)
    assert torch.equal(ours.timesteps, reference.timesteps)
    sample = expected = noise(0)
    for i, timestep in enumerate(reference.timesteps):
        output = noise(i + 1)
        sample, x0 = ours.step(output, timestep, sample, return_dict=False)
        expected, expected_x0 = reference.step(output, timestep, expected, return_dict=False)
        torch.testing.assert_close(x0, expected_x0)
        torch.testing.assert_close(sample, expected)


def test_distilled_ddim_lands_on_the_next_timestep_where_steps_do_not_divide():
    """From 999 of 16 steps to 937, and from 937 to 874, one below what diffusers takes for the previous timestep."""
    scheduler = DistilledDDIMScheduler(distilled_num_inference_steps=[16])
    scheduler.set_timesteps(16)
    assert scheduler.timesteps[:3].tolist() == [999, 937, 874]
    x0, eps = noise(1), noise(2)
    alpha_bar, next_alpha_bar = cosine_alpha_cumprod(937), cosine_alpha_cumprod(874)
    sample = math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * eps
    prev_sample = scheduler.step(velocity(x0, eps, alpha_bar), 937, sample).prev_sample
    expected = math.sqrt(next_alpha_bar) * x0 + math.sqrt(1 - next_alpha_bar) * eps
    torch.testing.assert_close(prev_sample, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "scheduler",
    [
        UFOGenScheduler(distilled_num_inference_steps=[1, 2]),
        DistilledDDIMScheduler(distilled_num_inference_steps=[8, 4]),
    ],
)
def test_schedulers_survive_a_round_trip(scheduler, tmp_path, caplog):
    scheduler.save_config(tmp_path)
    for again in (type(scheduler).from_pretrained(tmp_path), type(scheduler).from_config(scheduler.config)):
        assert type(again) is type(scheduler)
        keys = {key for key in scheduler.config if not key.startswith("_")}
        assert {key: again.config[key] for key in keys} == {key: scheduler.config[key] for key in keys}
        assert torch.equal(again.alphas_cumprod, scheduler.alphas_cumprod)
    assert not caplog.records


@pytest.mark.parametrize("cls", [UFOGenScheduler, DistilledDDIMScheduler])
def test_schedulers_refuse_bad_input(cls):
    for counts in ([], [0], [1001]):
        with pytest.raises(ValueError, match="accepted: counts from 1 to 1000"):
            cls(distilled_num_inference_steps=counts)
    scheduler = cls(distilled_num_inference_steps=[2, 4])
    with pytest.raises(ValueError, match="call set_timesteps first"):
        scheduler.step(noise(0), 999, noise(1))
    with pytest.raises(ValueError, match=r"num_inference_steps is 3, this scheduler accepts \[2, 4\]"):
        scheduler.set_timesteps(3)
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match="timestep is 998"):
        scheduler.step(noise(0), 998, noise(1))
