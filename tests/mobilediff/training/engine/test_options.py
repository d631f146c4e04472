"""Options from a file and the command line."""

import sys

import pytest

from mobilediff.training.engine.options import (
    GeneratorOptions,
    RunLimits,
    TrainingOptions,
    build_options,
    parse_options,
)
from mobilediff.training.engine.stage import Stage, run_stage


def test_options_come_from_the_file_and_then_from_the_command_line(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("output: runs/a\nlearning_rate: 1e-4\nbetas: [0.5, 0.9]\nsteps: 7\n")
    options, limits = parse_options(TrainingOptions, ["--config", str(file), "--max-minutes", "2", "steps=9"])
    assert (options.output, options.learning_rate, options.betas, options.steps) == ("runs/a", 1e-4, (0.5, 0.9), 9)
    assert limits == RunLimits(max_minutes=2.0)


def test_a_config_of_an_ablation_is_found_beside_the_others(tmp_path, capsys):
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "run.yaml").write_text("output: runs/a\n")
    options, _ = parse_options(TrainingOptions, ["--config", str(tmp_path / "run.yaml")])
    assert options.output == "runs/a" and f"is now {tmp_path}/ablations/run.yaml" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text("output: runs/b\n")
    assert parse_options(TrainingOptions, ["--config", str(tmp_path / "run.yaml")])[0].output == "runs/b"
    with pytest.raises(SystemExit):
        parse_options(TrainingOptions, ["--config", str(tmp_path / "other.yaml")])
    assert (
        f"no such config file: {tmp_path}/other.yaml, nor {tmp_path}/ablations/other.yaml" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("stepz=9", "stepz"),
        ("steps=many", "many"),
        ("steps=1.5", "1.5"),
        ("compile=1", "compile"),
        ("steps=0", "steps is 0"),
        ("batch_size=-4", "batch_size is -4"),
        ("dtype=fp16", "dtype is 'fp16'; accepted is 'bf16', 'fp32' or 'fp16-weights'"),
        ("steps", "key=value"),
        ("steps=[1", "steps=[1 is not YAML"),
        ("betas=[0.9]", "betas is [0.9]; accepted is a longer list"),
        ("betas=[0.9, high]", "betas is 'high'"),
        ("further_ema_decays=[0.9, low]", "further_ema_decays is 'low'"),
    ],
)
def test_bad_options_are_named(tmp_path, capsys, override, named):
    file = tmp_path / "run.yaml"
    file.write_text("output: runs/a\n")
    with pytest.raises(SystemExit):
        parse_options(TrainingOptions, ["--config", str(file), override])
    assert named in capsys.readouterr().err


def test_a_config_file_holds_keys_and_values(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    for text, named in (("- output", "holds a list"), ("output: [", "is not YAML")):
        file.write_text(text)
        with pytest.raises(SystemExit):
            parse_options(TrainingOptions, ["--config", str(file)])
        assert named in capsys.readouterr().err


def test_what_a_stage_refuses_is_one_line(tmp_path, monkeypatch):
    file = tmp_path / "run.yaml"
    file.write_text("output: runs/a\n")
    monkeypatch.setattr(sys, "argv", ["stage", "--config", str(file)])

    class Refusing(Stage[TrainingOptions]):
        def setup(self):
            raise FileNotFoundError(f"{self.options.output} is nowhere")

    with pytest.raises(SystemExit, match="^error: runs/a is nowhere$"):
        run_stage(Refusing, TrainingOptions)


def test_an_option_may_be_none():
    options = build_options(GeneratorOptions, {"output": "a", "data": None, "sample_steps": 4})
    assert (options.data, options.sample_steps) == (None, 4)


def test_options_do_not_change():
    options = build_options(TrainingOptions, {"output": "a"})
    with pytest.raises(ValueError, match="frozen"):
        options.steps = 2


def test_a_trial_is_of_few_steps_in_a_folder_of_its_own():
    options = build_options(GeneratorOptions, {"output": "a", "sample_every": 100, "validation_samples": 1000})
    tried = options.for_trial(RunLimits(dry_run=True))
    assert (tried.output, tried.steps, tried.sample_every, tried.validation_samples) == ("a-dry-run", 3, 2, 260)
    timed = options.for_trial(RunLimits(benchmark=True))
    assert (timed.output, timed.steps, timed.batch_size) == ("a-benchmark", options.steps, options.batch_size)
