"""The contract of every scheduler of the project: each of its tests runs over all of them."""

import inspect

import pytest
import torch

from mobilediff.diffusion import FORWARD_PROCESS
from mobilediff.schedulers import DistilledDDIMScheduler, UFOGenScheduler
from mobilediff.schedulers.conversion import SAMPLING

COUNTS = (1, 3, 8)
SHAPE = (2, 4, 8, 8)


def test_distilled_networks_are_sampled_along_the_process_they_are_trained_with():
    assert {name: SAMPLING[name] for name in FORWARD_PROCESS} == FORWARD_PROCESS


@pytest.mark.parametrize("scheduler_class", [UFOGenScheduler, DistilledDDIMScheduler])
class TestSchedulerContract:
    def tensors(self):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)

    def sample(self, scheduler, num_steps, seed):
        """Latents after all steps, with a network that returns tanh of its input."""
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        kwargs = {"generator": torch.Generator().manual_seed(seed)} if takes_generator else {}
        scheduler.set_timesteps(num_steps)
        latents = self.tensors()[0]
        for t in scheduler.timesteps:
            latents = scheduler.step(latents.tanh(), t, latents, **kwargs).prev_sample
        return latents

    @pytest.mark.parametrize("num_steps", COUNTS)
    def test_set_timesteps_gives_descending_whole_numbers(self, scheduler_class, num_steps):
        scheduler = scheduler_class(distilled_num_inference_steps=COUNTS)
        scheduler.set_timesteps(num_steps)
        assert scheduler.timesteps.shape == (num_steps,) and scheduler.timesteps.dtype == torch.int64
        assert scheduler.timesteps[0] == 999 and scheduler.timesteps[-1] >= 0
        assert (scheduler.timesteps.diff() < 0).all()

    def test_refuses_other_step_counts(self, scheduler_class):
        with pytest.raises(ValueError, match="num_inference_steps is 2"):
            scheduler_class(distilled_num_inference_steps=COUNTS).set_timesteps(2)

    def test_step_returns_named_output_and_equal_tuple(self, scheduler_class):
        scheduler = scheduler_class(distilled_num_inference_steps=COUNTS)
        scheduler.set_timesteps(1)
        output, latents = self.tensors()
        named = scheduler.step(output, 999, latents)
        prev_sample, pred_original_sample = scheduler.step(output, 999, latents, return_dict=False)
        assert torch.equal(named.prev_sample, prev_sample)
        assert torch.equal(named.pred_original_sample, pred_original_sample)
        assert prev_sample.shape == SHAPE and prev_sample.dtype == torch.float32

    def test_last_step_ends_at_the_clean_prediction(self, scheduler_class):
        scheduler = scheduler_class(distilled_num_inference_steps=COUNTS)
        scheduler.set_timesteps(3)
        output, latents = self.tensors()
        step = scheduler.step(output, scheduler.timesteps[-1], latents)
        torch.testing.assert_close(step.prev_sample, step.pred_original_sample)

    def test_save_and_load_keep_config_and_samples(self, scheduler_class, tmp_path):
        scheduler = scheduler_class(distilled_num_inference_steps=COUNTS)
        scheduler.save_pretrained(tmp_path)
        loaded = scheduler_class.from_pretrained(tmp_path)
        options = set(inspect.signature(scheduler_class).parameters) - {"distilled_num_inference_steps"}
        assert {name: loaded.config[name] for name in options} == {name: scheduler.config[name] for name in options}
        assert tuple(loaded.config.distilled_num_inference_steps) == COUNTS
        assert torch.equal(self.sample(loaded, 3, seed=0), self.sample(scheduler, 3, seed=0))

    def test_equal_generators_give_equal_samples(self, scheduler_class):
        first, second, third = (
            self.sample(scheduler_class(distilled_num_inference_steps=COUNTS), 3, seed) for seed in (0, 0, 1)
        )
        assert torch.equal(first, second)
        assert torch.equal(first, third) == (scheduler_class is DistilledDDIMScheduler)

    def test_refuses_step_before_set_timesteps_and_foreign_timestep(self, scheduler_class):
        scheduler = scheduler_class(distilled_num_inference_steps=COUNTS)
        output, latents = self.tensors()
        with pytest.raises(ValueError, match="call set_timesteps first"):
            scheduler.step(output, 999, latents)
        scheduler.set_timesteps(3)
        with pytest.raises(ValueError, match="timestep is 998"):
            scheduler.step(output, 998, latents)

    def test_each_compatible_class_draws_the_same_in_one_step_and_back(self, scheduler_class):
        scheduler = scheduler_class(distilled_num_inference_steps=COUNTS)
        expected = self.sample(scheduler, 1, seed=0)
        assert scheduler.compatibles
        for other_class in scheduler.compatibles:
            other = other_class.from_config(scheduler.config)
            torch.testing.assert_close(self.sample(other, 1, seed=0), expected)
            back = scheduler_class.from_config(other.config)
            assert {name: back.config[name] for name in scheduler.config} == scheduler.config
            assert torch.equal(self.sample(back, 1, seed=0), expected)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("beta_schedule", "linear"),  # diffusers' default, as are the next two
            ("clip_sample", True),
            ("prediction_type", "epsilon"),
            ("prediction_type", "sample"),
            ("num_train_timesteps", 500),
            ("timestep_spacing", "leading"),
            ("thresholding", True),
        ],
    )
    def test_a_configuration_that_samples_otherwise_is_refused(self, scheduler_class, name, value):
        counts = {"distilled_num_inference_steps": COUNTS}
        refusal = f"{name} is {value!r}, but {scheduler_class.__name__} samples with "
        for other_class in scheduler_class().compatibles:
            other = other_class(**SAMPLING)
            torch.testing.assert_close(
                self.sample(scheduler_class.from_config(other.config, **counts), 1, seed=0),
                self.sample(other, 1, seed=0),
            )
            asking = other_class(**SAMPLING | {name: value})
            with pytest.raises(ValueError, match=refusal):
                scheduler_class.from_config(asking.config, **counts)
        if name in inspect.signature(scheduler_class).parameters:
            with pytest.raises(ValueError, match=refusal):
                scheduler_class(**{name: value})

    def test_a_saved_configuration_that_samples_otherwise_is_refused(self, scheduler_class, tmp_path):
        scheduler_class().save_pretrained(tmp_path)
        file = tmp_path / "scheduler_config.json"
        file.write_text(file.read_text().replace('"v_prediction"', '"epsilon"'))
        with pytest.raises(ValueError, match="prediction_type is 'epsilon'"):
            scheduler_class.from_pretrained(tmp_path)
