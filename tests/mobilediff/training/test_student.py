"""Stage `student`."""

import json

import pytest
import torch

from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.student import Student, StudentOptions, inherit_weights, match_stages
from tests.mobilediff.training.runs import read_records, run, tiny_options
from tests.tiny import tiny_unet


@pytest.mark.slow
def test_the_student_learns_from_the_teachers_output_and_features(tmp_path, data_folder, checkpoints):
    network = tmp_path / "student.json"
    network.write_text(json.dumps({**tiny_unet("student").config, "_class_name": "MobileUNet"}))
    values = tiny_options(
        tmp_path / "student",
        data_folder,
        teacher=str(checkpoints / "teacher"),
        network=str(network),
        latent_cache=str(tmp_path / "latents"),
    )
    assert run(Student, StudentOptions, values)
    assert {"loss_task", "loss_kd_output", "loss_kd_feat"} <= set(read_records(tmp_path / "student")[-1])
    pipeline = MobileDiffusionPipeline.from_pretrained(tmp_path / "student" / "export")
    assert pipeline("a cat", num_inference_steps=2, output_type="pt").images.isfinite().all()
    with pytest.raises(FileNotFoundError, match="no checkpoint at nowhere"):
        run(Student, StudentOptions, values | {"teacher": "nowhere"})


def test_student_inherits_what_fits():
    source, target = tiny_unet("teacher"), tiny_unet("student")
    before = {name: value.clone() for name, value in target.state_dict().items()}
    names = inherit_weights(target, source)
    assert "conv_in.weight" in names
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name] if name in names else before[name]), name


def test_stages_are_matched_from_both_ends_where_their_maps_have_one_size():
    def shapes(*sizes):
        return [torch.Size([1, 8, size, size]) for size in sizes]

    teacher = shapes(8, 4, 4, 4, 8, 16, 16)  # three levels: down, middle, up
    assert match_stages(teacher, teacher) == [(i, i) for i in range(7)]
    # two levels: the middle is of 8 x 8 here and of 4 x 4 there, and so is the second level
    assert match_stages(shapes(8, 8, 8, 16, 16), teacher) == [(0, 0), (3, 5), (4, 6)]
    with pytest.raises(ValueError, match="one size"):
        match_stages(shapes(2, 2, 2), teacher)
