"""Stage `control`."""

import pytest
import torch

from mobilediff.checkpoints import load_pipeline
from mobilediff.training.control import Control, ControlOptions, thicken
from mobilediff.training.engine.options import RunLimits, build_options
from mobilediff.training.engine.state import load_state
from tests.mobilediff.training.runs import read_records, run, tiny_encoder, tiny_options


@pytest.fixture
def options(tmp_path, data_folder, checkpoints):
    """Options of a run from the tiny one-step student."""
    student = checkpoints / "student-1step"
    return tiny_options(
        tmp_path / "one",
        data_folder,
        student=str(student),
        vae=str(student / "vae"),
        perceptual=tiny_encoder(tmp_path / "encoder"),
        dtype="fp32",
        learning_rate=0.01,
        sample_every=2,
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"thick_probability": 1.5}, "thick_probability is 1.5; accepted"),
        ({"lambda_edges": -1.0}, "lambda_edges is -1.0; accepted"),
    ],
)
def test_bad_options_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        build_options(ControlOptions, {"output": "a", "student": "b", "vae": "c", "perceptual": "d", **changes})


def test_a_model_that_is_not_distilled_is_refused(options, checkpoints):
    options["student"] = str(checkpoints / "teacher")
    with pytest.raises(ValueError, match="teacher is not distilled for any number of steps; accepted"):
        run(Control, ControlOptions, options)


@pytest.mark.slow
def test_a_student_of_several_steps_learns_to_denoise(tmp_path, options, checkpoints):
    options |= {"student": str(checkpoints / "student-8step"), "vae": str(checkpoints / "student-8step/vae")}
    assert run(Control, ControlOptions, options)
    assert "loss_task" in read_records(tmp_path / "one")[-1]
    exported, sketch = load_pipeline(tmp_path / "one/export"), torch.ones(1, 32, 32)
    drawn = [
        exported("a ship", sketch, controlnet_conditioning_scale=scale, generator=torch.Generator().manual_seed(0))
        for scale in (0.0, 1.0)
    ]
    assert drawn[0].images[0].tobytes() != drawn[1].images[0].tobytes()


@pytest.mark.slow
def test_the_control_network_alone_learns_and_the_run_resumes(tmp_path, options, checkpoints):
    assert run(Control, ControlOptions, options)
    exported, student = (load_pipeline(path) for path in (tmp_path / "one/export", checkpoints / "student-1step"))
    for name, value in student.unet.state_dict().items():
        assert torch.equal(exported.unet.state_dict()[name], value)
    sketch = torch.ones(1, 32, 32)
    drawn = [
        exported("a ship", sketch, controlnet_conditioning_scale=scale, generator=torch.Generator().manual_seed(0))
        for scale in (0.0, 1.0)
    ]
    assert drawn[0].images[0].tobytes() != drawn[1].images[0].tobytes()
    terms = ("edges", "colors", "perceptual", "own_colors", "moments_0", "moments_1")
    assert {f"loss_{term}" for term in terms} <= set(read_records(tmp_path / "one")[-1])
    assert (tmp_path / "one/samples/00000002.png").is_file()

    again = options | {"output": str(tmp_path / "again"), "initial_weights": str(tmp_path / "one/export/controlnet")}
    assert run(Control, ControlOptions, again)

    rest = options | {"output": str(tmp_path / "resumed")}
    assert not run(Control, ControlOptions, rest, RunLimits(max_minutes=0.0))
    assert run(Control, ControlOptions, rest)
    whole, resumed = (load_state(tmp_path / name)[0] for name in ("one", "resumed"))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_edges_become_strokes_of_their_width():
    edges = torch.zeros(3, 1, 8, 8)
    edges[:, :, 4] = 1
    strokes = thicken(edges, torch.tensor([1, 2, 3]))
    assert strokes.shape == edges.shape
    assert [stroke.sum().item() / 8 for stroke in strokes] == [1, 2, 3]
    assert (strokes >= edges).all()
