"""Stage `inpaint`."""

import pytest
import torch

from mobilediff.downstream.inpaint import MobileDiffusionInpaintPipeline
from mobilediff.training.engine.options import build_options
from mobilediff.training.inpaint import Inpaint, InpaintOptions, widened
from tests.generators import generator
from tests.mobilediff.downstream.pictures import LEFT, pictures
from tests.mobilediff.training.runs import read_records, run, tiny_encoder, tiny_options
from tests.tiny import tiny_pipeline


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_intervals": 1}, "num_intervals is 1"),
        ({"hidden_probability": 1.5}, "hidden_probability is 1.5"),
        ({"validation_samples": 500}, "validation_samples is 500; accepted is 0"),
    ],
)
def test_bad_options_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        build_options(InpaintOptions, {"output": "a", "student": "b", "vae": "c", "perceptual": "d", **changes})


def test_the_widened_network_does_not_see_its_further_inputs_yet():
    unet = tiny_pipeline("student-1step").unet
    wide, sample = widened(unet), torch.randn(2, 9, 16, 16, generator=generator(0))
    arguments = torch.tensor([749, 749]), torch.randn(2, 3, 16), torch.randn(2, 12)
    torch.testing.assert_close(wide(sample, *arguments).sample, unet(sample[:, :4], *arguments).sample)


def test_a_student_of_more_steps_is_refused(tmp_path, data_folder, checkpoints):
    student = str(checkpoints / "student-8step")
    values = tiny_options(
        tmp_path / "run", data_folder, student=student, vae=f"{student}/vae", perceptual="a", null_probability=0.0
    )
    with pytest.raises(ValueError, match="student-8step draws in 8 network calls; accepted is one"):
        run(Inpaint, InpaintOptions, values)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_export_sees_masks_and_the_run_resumes(tmp_path, data_folder, checkpoints):
    values = tiny_options(
        tmp_path / "run",
        data_folder,
        student=str(checkpoints / "student-1step"),
        vae=str(checkpoints / "student-1step/vae"),
        perceptual=tiny_encoder(tmp_path / "encoder"),
        null_probability=0.0,
        reconstruction_steps=1,
        sample_every=2,
    )
    assert run(Inpaint, InpaintOptions, values)
    records = read_records(tmp_path / "run")
    assert {"loss_reconstruction", "loss_perceptual", "loss_adversarial", "loss_discriminator"} <= records[0].keys()
    assert any(record.get("repainting_error", 0) > 0 for record in records)
    assert (tmp_path / "run" / "samples" / "00000002.png").is_file()
    assert run(Inpaint, InpaintOptions, values | {"steps": 4})
    assert read_records(tmp_path / "run")[-1]["step"] == 4
    pipeline = MobileDiffusionInpaintPipeline.from_pretrained(tmp_path / "run" / "export")
    assert pipeline.unet.config.in_channels == 9 and pipeline.unet.conv_in.weight[:, 4:].abs().max() > 0
    image = pictures(1)
    drawn = pipeline("an ostrich", image, LEFT, generator=generator(0), output_type="pt").images
    assert pipeline.num_timesteps == 1 and torch.equal(
        (drawn * 255).round() * (1 - LEFT), (image * 255).round() * (1 - LEFT)
    )
