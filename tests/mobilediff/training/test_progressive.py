"""Stage `progressive`."""

import pytest
import torch

from mobilediff.diffusion import diffuse, trailing_timesteps
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.data.conditioning import ConditionedNetwork
from mobilediff.training.engine.options import build_options
from mobilediff.training.progressive import Progressive, ProgressiveOptions, distillation_target
from tests.mobilediff.training.denoisers import SaysSample, velocity_to
from tests.mobilediff.training.runs import run, tiny_options


def options(tmp_path, data_folder, checkpoints, name, **changes) -> dict:
    return tiny_options(
        tmp_path / name,
        data_folder,
        latent_cache=str(tmp_path / "latents"),
        null_probability=0.0,
        student=str(checkpoints / "student"),
        **changes,
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"guidance_interval": [0.8, 0.15]}, r"guidance_interval is \(0.8, 0.15\)"),
        ({"default_guidance_interval": [0.8, 0.2]}, r"interval is \(0.8, 0.2\)"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"target_steps": 0}, "target_steps is 0"),
        ({"num_steps": 4}, "default_num_inference_steps is 8; accepted is num_steps, 4"),
        ({"cfg_aware_probability": 1.5}, "cfg_aware_probability is 1.5"),
        ({"cfg_aware_range": [14, 2]}, r"cfg_aware_range is \[14"),
        ({"validation_samples": 265}, "validation_samples is 265; accepted are 0 and"),
        ({"validation_samples": 100}, "validation_samples is 100"),
    ],
)
def test_bad_options_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        build_options(ProgressiveOptions, {"output": "a", "student": "b", **changes})


def test_the_student_is_an_option_without_a_default():
    with pytest.raises(ValueError, match="student is missing"):
        build_options(ProgressiveOptions, {"output": "a"})


@pytest.mark.slow
def test_halving_the_steps_makes_a_checkpoint_of_so_many_steps(tmp_path, data_folder, checkpoints):
    assert run(Progressive, ProgressiveOptions, options(tmp_path, data_folder, checkpoints, "eight"))
    pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / "eight" / "export")
    assert pipeline.nfe() == 8
    with pytest.raises(ValueError, match="guidance is distilled into this checkpoint"):
        pipeline.nfe(guidance_scale=2.0)


@pytest.mark.slow
def test_a_teacher_may_have_its_guidance_folded_in_alone(tmp_path, data_folder, checkpoints):
    changes = {"target_steps": 1, "num_steps": 32, "default_num_inference_steps": 32}
    changes["teacher"] = str(checkpoints / "teacher")
    assert run(Progressive, ProgressiveOptions, options(tmp_path, data_folder, checkpoints, "folded", **changes))
    assert MobileDiffusionPipeline.from_pretrained(tmp_path / "folded" / "export").nfe() == 32


@pytest.mark.slow
@pytest.mark.parametrize(("probability", "expected"), [(0.0, {4.0}), (1.0, {3.0})])
def test_cfg_aware_steps_guide_teacher_and_student_alike(
    tmp_path, data_folder, checkpoints, monkeypatch, probability, expected
):
    of_teacher, of_student = [], []

    def guided(self, noisy, timesteps, caption_ids, scale, interval):
        of_teacher.append(scale)
        return self.with_null(noisy, timesteps, caption_ids)[0]

    def guided_and_plain(self, noisy, timesteps, caption_ids, scale, interval):
        of_student.append(scale)
        return original(self, noisy, timesteps, caption_ids, scale, interval)

    original = ConditionedNetwork.guided_and_plain
    monkeypatch.setattr(ConditionedNetwork, "guided", guided)
    monkeypatch.setattr(ConditionedNetwork, "guided_and_plain", guided_and_plain)  # `guided` does not come to it
    changes = {"guidance_scale": 4.0, "cfg_aware_probability": probability, "cfg_aware_range": [3.0, 3.0]}
    changes["lambda_task"] = 0.2
    assert run(Progressive, ProgressiveOptions, options(tmp_path, data_folder, checkpoints, "aware", **changes))
    assert len(of_teacher) == 3 * 2 and set(of_teacher) == expected
    assert of_student == [3.0 if probability else 1.0] * 3
    pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / "aware" / "export")
    assert pipeline.config.guidance_distilled is not bool(probability)


def test_the_target_is_where_the_teachers_steps_lead():
    """A teacher that always sees one sample leads to it, in as many steps as it takes."""
    caption_ids = torch.arange(4)
    timesteps = trailing_timesteps(32, torch.device("cpu"))
    z = diffuse(torch.randn(4, 2, 8, 8), timesteps[caption_ids * 8], torch.Generator().manual_seed(0))
    for steps in (1, 2, 8):
        teacher = SaysSample(0.5)
        target = distillation_target(
            lambda noisy, t, teacher=teacher: teacher(noisy, t, caption_ids),
            z,
            [timesteps[caption_ids * 8 + place] for place in range(steps + 1)],
        )
        assert len(teacher.batches) == steps
        torch.testing.assert_close(target, torch.full_like(target, 0.5), rtol=1e-3, atol=1e-3)
    x = torch.randn(4, 2, 8, 8)  # a step of a teacher that is right leads to what it predicts
    target = distillation_target(
        lambda noisy, t: velocity_to(x, noisy, t), z, [timesteps[caption_ids * 8], timesteps[caption_ids * 8 + 1]]
    )
    torch.testing.assert_close(target, x, rtol=1e-3, atol=1e-3)
