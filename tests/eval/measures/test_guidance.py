"""Sweeps over guidance, interval, steps and scheduler."""

import json

import pytest
from PIL import Image

import eval.guidance
from eval.measures.guidance import measure_guidance, sweep_points
from eval.samples.pipelines import load_sampler
from eval.samples.settings import resolve_settings


@pytest.fixture
def teacher(checkpoints):
    folder = checkpoints / "teacher"
    pipeline = load_sampler(folder)
    return folder, pipeline, resolve_settings(pipeline, folder, num_inference_steps=4)


def test_every_combination_is_a_point_and_without_guidance_one(teacher):
    _, pipeline, settings = teacher
    points = sweep_points(
        pipeline, settings, [1, 3], [[0, 1], [0.3, 0.8]], [2, 4], ["DDIMScheduler", "EulerDiscreteScheduler"]
    )
    assert len(points) == 2 * 2 * 3
    shown = {
        (one.scheduler, one.num_inference_steps, tuple(one.guidance_interval), one.guidance_scale) for one in points
    }
    assert len(shown) == len(points)
    assert {one.nfe for one in points if one.guidance_scale == 1} == {2, 4}
    inner = [one for one in points if one.guidance_interval == [0.3, 0.8] and one.num_inference_steps == 4]
    assert {one.nfe for one in inner} == {4 + 2}
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"  # as it was


def test_points_are_measured_on_samples_of_their_own(teacher, judge, tmp_path):
    _, pipeline, settings = teacher
    points = sweep_points(pipeline, settings, [3], schedulers=["DDIMScheduler", "DPMSolverMultistepScheduler"])
    measured = measure_guidance(pipeline, points, judge, 12, samples=tmp_path / "samples")["points"]
    assert [one["scheduler"] for one in measured] == ["DDIMScheduler", "DPMSolverMultistepScheduler"]
    hashes = {one["samples"]["images_sha256"] for one in measured}
    assert len(hashes) == 2 and type(pipeline.scheduler).__name__ == "DDIMScheduler"


def test_the_command_states_each_point_and_writes_them(teacher, judge, tmp_path, monkeypatch, capsys):
    folder, _, _ = teacher
    monkeypatch.setattr(eval.guidance, "judge_extractor", lambda: judge)
    arguments = ["--model", str(folder), "--scales", "2", "--n", "12", "--samples", str(tmp_path / "samples")]
    kept = ["--json", str(tmp_path / "sweep.json"), "--plot", str(tmp_path / "sweep.png")]
    eval.guidance.main([*arguments, "--intervals", "0.3,0.8", "--steps", "4", *kept])
    assert "DDIMScheduler, 4 steps, guidance 2 in 0.3 to 0.8 (6 NFE): class accuracy" in capsys.readouterr().out
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert written["points"][0]["guidance_interval"] == [0.3, 0.8] and written["n"] == 12
    with Image.open(tmp_path / "sweep.png") as image:
        image.load()
    with pytest.raises(ValueError, match="--plot is sweep.jpg; accepted is a file that ends in .png"):
        eval.guidance.main([*arguments, "--plot", "sweep.jpg"])
    for interval, message in (("0.3", "'0.3' is no interval"), ("a,b", "'a,b' is no interval")):
        with pytest.raises(SystemExit):
            eval.guidance.main([*arguments, "--intervals", interval])
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="guidance_interval is .0.8, 0.3., accepted"):
        eval.guidance.main([*arguments, "--intervals", "0.8,0.3"])
    with pytest.raises(ValueError, match="a scale is 0.5"):
        eval.guidance.main([*arguments, "--scales", "0.5"])
    student = folder.parent / "student-8step"
    with pytest.raises(ValueError, match="guidance is distilled into this checkpoint"):
        eval.guidance.main(["--model", str(student), "--n", "12"])
