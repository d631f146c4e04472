"""Stage `teacher`."""

import json

import pytest

from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.schedulers.compatible import choose_scheduler
from mobilediff.training.engine.options import RunLimits
from mobilediff.training.student import Student, StudentOptions
from mobilediff.training.teacher import Teacher, TeacherOptions
from tests.mobilediff.training.runs import run, tiny_frozen_parts, tiny_options
from tests.tiny import tiny_unet


@pytest.fixture
def values(tmp_path, data_folder):
    network = tmp_path / "unet.json"
    network.write_text(json.dumps({**tiny_unet("teacher").config, "_class_name": "UNet2DConditionModel"}))
    return tiny_options(
        tmp_path / "teacher",
        data_folder,
        **tiny_frozen_parts(tmp_path / "parts"),
        network=str(network),
        latent_cache=str(tmp_path / "latents"),
        sample_every=3,
        sample_steps=1,
    )


@pytest.mark.slow
def test_the_export_is_a_pipeline(tmp_path, values):
    assert run(Teacher, TeacherOptions, values, RunLimits(dry_run=True))
    assert run(Teacher, TeacherOptions, values)
    pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / "teacher" / "export")
    images = pipeline("a fire truck", num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 3, 32, 32)
    assert (tmp_path / "teacher" / "samples" / "00000003.png").is_file()


@pytest.mark.slow
def test_a_straight_path_has_schedulers_of_its_own_and_is_not_distilled(tmp_path, values):
    straight = values | {"output": str(tmp_path / "straight"), "flow_matching": True}
    assert run(Teacher, TeacherOptions, straight)
    pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / "straight" / "export")
    assert pipeline.scheduler.config.prediction_type == "flow_prediction"
    assert pipeline("a fire truck", num_inference_steps=2, output_type="pt").images.isfinite().all()
    with pytest.raises(ValueError, match="scheduler is 'DDIMScheduler'; accepted"):
        choose_scheduler(pipeline, "DDIMScheduler")
    choose_scheduler(pipeline, "UniPCMultistepScheduler")
    assert pipeline("a fire truck", num_inference_steps=2, output_type="pt").images.isfinite().all()
    distilled = {key: value for key, value in values.items() if key not in ("vae", "text")}
    distilled |= {"output": str(tmp_path / "of-flow"), "teacher": straight["output"] + "/export"}
    with pytest.raises(ValueError, match="prediction_type is flow_prediction; accepted is v_prediction"):
        run(Student, StudentOptions, distilled)


def test_bad_inputs_are_refused(tmp_path, values):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        run(Teacher, TeacherOptions, values | {"vae": "nowhere"})
    config = json.loads((tmp_path / "unet.json").read_text())
    (tmp_path / "unet.json").write_text(json.dumps(config | {"sample_size": 32}))
    with pytest.raises(ValueError, match="sample_size is 32, but the latents need 16"):
        run(Teacher, TeacherOptions, values)
