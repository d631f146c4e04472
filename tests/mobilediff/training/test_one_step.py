"""Stage `one_step`."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mobilediff.checkpoints import load_pipeline
from mobilediff.training.engine.options import RunLimits, build_options
from mobilediff.training.engine.state import load_state
from mobilediff.training.one_step import OneStep, OneStepOptions
from tests.mobilediff.training.runs import read_records, run, tiny_encoder, tiny_options
from tests.tiny import tiny_checkpoint

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def start(tmp_path_factory, data_folder, checkpoints):
    """Options of a run with reconstruction and adversarial terms, whose inputs are shared by the tests."""
    folder = tmp_path_factory.mktemp("inputs")
    return tiny_options(
        "",
        data_folder,
        student=str(checkpoints / "student-8step"),
        num_pairs=6,
        reconstruction_steps=1,
        lambda_perceptual=0.0,
        lambda_adversarial=1.0,
        num_intervals=2,
        latent_cache=str(folder / "latents"),
        pair_cache=str(folder / "pairs"),
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"student_steps": 6}, "student_steps is 6; accepted are multiples of num_intervals, 4"),
        ({"discriminator_timesteps": "all"}, "discriminator_timesteps is 'all'; accepted is 'any' or 'next'"),
        ({"discriminator_interval": [0.4, 0.4]}, "0.4"),
        ({"null_probability": 0.1}, "null_probability is 0.1; accepted is 0"),
        ({"first_timestep_probability": 1.5}, "first_timestep_probability is 1.5"),
        ({"steps": 5, "reconstruction_steps": 5}, "reconstruction_steps is 5; accepted are"),
        ({"default_num_inference_steps": 3}, r"default_num_inference_steps is 3; accepted are \[1, 2, 4\]"),
        ({"lambda_perceptual": 0.1}, "perceptual is missing; accepted is a folder, or lambda_perceptual 0"),
        ({"lambda_distribution": 0.1}, "teacher is missing; accepted is a folder, or lambda_distribution 0"),
        ({"lambda_distribution": 0.1, "teacher": "c"}, "fake_score is missing"),
    ],
)
def test_bad_options_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        build_options(OneStepOptions, {"output": "a", "student": "b", "lambda_perceptual": 0.0, **changes})


@pytest.mark.slow
def test_an_adversarial_run_resumes_and_starts_another(tmp_path, start):
    options = start | {"output": str(tmp_path / "one"), "lambda_r1": 1.0, "discriminator_timesteps": "next"}
    options |= {"sample_every": 2, "validation_samples": 260, "validation_steps": [2]}
    assert run(OneStep, OneStepOptions, options)
    assert load_pipeline(tmp_path / "one" / "export").scheduler.config.distilled_num_inference_steps == [1, 2]
    (pairs_file,) = Path(start["pair_cache"]).glob("*.safetensors")
    assert len(load_file(pairs_file)["caption_ids"]) == 6
    records = read_records(tmp_path / "one")
    measured = next(record for record in records if "class_accuracy" in record)
    assert measured["step"] == 2 and {"recall", "seed_distance", "recall_2_steps"} <= set(measured)
    assert measured["seed_distance_2_steps"] != measured["seed_distance"]
    assert not {"loss_perceptual", "loss_discriminator", "loss_adversarial"} & set(records[0])
    assert {"loss_reconstruction", "loss_adversarial", "loss_discriminator", "loss_r1"} <= set(records[-1])

    rest = options | {"output": str(tmp_path / "resumed")}
    assert not run(OneStep, OneStepOptions, rest, RunLimits(max_minutes=0.0))
    assert run(OneStep, OneStepOptions, rest)
    whole, resumed = (load_state(tmp_path / name)[0] for name in ("one", "resumed"))
    assert {name.split("/")[0] for name in whole} == {"generator", "discriminator"}
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())

    trained = tmp_path / "one" / "export"
    further = start | {"output": str(tmp_path / "further"), "learning_rate": 1e-9}
    assert run(OneStep, OneStepOptions, further | {"initial_weights": str(trained / "unet")})
    before, after = (load_file(folder / WEIGHTS) for folder in (trained, tmp_path / "further" / "export"))
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, before[name])
    of_student = load_file(Path(start["student"]) / WEIGHTS)
    assert any(not torch.equal(tensor, after[name]) for name, tensor in of_student.items())
    assert len(list(Path(start["pair_cache"]).glob("*.safetensors"))) == 1  # all of them had the same


@pytest.mark.slow
def test_feature_maps_and_any_timestep_are_terms_of_their_own(tmp_path, start):
    options = start | {"output": str(tmp_path / "run"), "lambda_perceptual": 1.0, "discriminator_every": 2}
    assert run(OneStep, OneStepOptions, options | {"perceptual": tiny_encoder(tmp_path / "image_encoder")})
    records = read_records(tmp_path / "run")
    assert all(record["loss_perceptual"] > 0 for record in records)
    assert ["loss_discriminator" in record for record in records] == [False, False, True]
    assert ["loss_adversarial" in record for record in records] == [False, True, True]


@pytest.mark.slow
def test_distributions_are_matched_with_a_teacher(tmp_path, start, checkpoints):
    student = str(checkpoints / "student")
    options = start | {"output": str(tmp_path / "run"), "lambda_distribution": 1.0, "lambda_adversarial": 0.0}
    options |= {"teacher": student, "fake_score": student, "fake_score_updates": 2}
    assert run(OneStep, OneStepOptions, options)
    records = read_records(tmp_path / "run")
    assert not {"loss_distribution", "loss_fake_score"} & set(records[0])
    assert {"loss_reconstruction", "loss_distribution", "loss_fake_score"} <= set(records[-1])
    assert "loss_adversarial" not in records[-1]
    state, scalars = load_state(tmp_path / "run")
    assert {name.split("/")[0] for name in state} == {"generator", "fake_score"}
    assert state["fake_score/optimizer.0.step"] == 2 * 2  # two in each step but the first


@pytest.mark.slow
def test_a_trial_draws_few_pairs(tmp_path, start):
    options = start | {"output": str(tmp_path / "run"), "num_pairs": 60000, "pair_cache": str(tmp_path / "pairs")}
    assert run(OneStep, OneStepOptions, options, RunLimits(dry_run=True))
    (file,) = (tmp_path / "pairs").glob("*.safetensors")
    assert len(load_file(file)["caption_ids"]) == 16
    assert (tmp_path / "run-dry-run" / "stats.jsonl").is_file()


def test_bad_inputs_are_refused(tmp_path, start, checkpoints):
    student = checkpoints / "student"
    guided = tiny_checkpoint(tmp_path / "guided", "student-8step")
    index = json.loads((guided / "model_index.json").read_text())
    (guided / "model_index.json").write_text(json.dumps(index | {"guidance_distilled": False}))
    for changes, error, named in (
        ({"initial_weights": "nowhere"}, FileNotFoundError, "nowhere does not exist"),
        ({"student_steps": 4}, ValueError, "num_inference_steps is 4, this checkpoint was distilled for 8"),
        ({"student": str(guided)}, ValueError, "guided samples with guidance; accepted is a student that has it"),
        (
            {"lambda_distribution": 1.0, "teacher": "nowhere", "fake_score": str(student)},
            FileNotFoundError,
            "no checkpoint at nowhere",
        ),
    ):
        with pytest.raises(error, match=named):
            run(OneStep, OneStepOptions, start | {"output": str(tmp_path / "refused")} | changes)
    assert not (tmp_path / "refused").exists()
