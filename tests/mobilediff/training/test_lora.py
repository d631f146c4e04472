"""Stage `lora`."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mobilediff.checkpoints import load_pipeline
from mobilediff.training.engine.options import RunLimits, build_options
from mobilediff.training.lora import Lora, LoraOptions
from tests.checkpoints.drawing import draw
from tests.mobilediff.training.runs import read_records, run, tiny_encoder, tiny_options


@pytest.fixture
def images(tmp_path):
    """A folder of a red truck, a blue fire truck and two green cats."""
    folder = tmp_path / "images"
    for name, colours in {"truck": ["red"], "fire truck": ["blue"], "cat": ["green", "lime"]}.items():
        (folder / name).mkdir(parents=True)
        for colour in colours:
            Image.new("RGB", (40, 40), colour).save(folder / name / f"{colour}.png")
    return folder


def options_of(tmp_path, data, base, **changes):
    return tiny_options(
        tmp_path / "run",
        data,
        base=str(base),
        perceptual=tiny_encoder(tmp_path / "image_encoder"),
        rank=4,
        num_images=8,
        dtype="fp32",
        sample_every=3,
        learning_rate=0.01,
        **changes,
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"style": "oil"}, "style is 'oil'; accepted"),
        ({"rank": 2}, "rank is 2"),
        ({"rank": 33}, "rank is 33"),
        ({"num_images": 0, "style": "pencil"}, "num_images is 0"),
        ({}, "options style and data are missing"),
    ],
)
def test_bad_options_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        build_options(LoraOptions, {"output": "a", "base": "b", "perceptual": "c", **changes})


def test_a_model_distilled_for_several_steps_is_refused(tmp_path, checkpoints, images):
    with pytest.raises(ValueError, match="student-8step is distilled for .8. steps; accepted"):
        run(Lora, LoraOptions, options_of(tmp_path, images, checkpoints / "student-8step"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("base", ["student-1step", "student"])
@pytest.mark.parametrize("style", ["palette", None])
def test_a_lora_is_trained_that_loads_into_its_base(base, style, tmp_path, data_folder, checkpoints, images):
    data = data_folder if style else images
    assert run(Lora, LoraOptions, options_of(tmp_path, data, checkpoints / base, style=style))
    assert (tmp_path / "run/samples/00000003.png").is_file()
    pipeline = load_pipeline(checkpoints / base)
    plain = draw(pipeline)
    pipeline.load_lora_weights(tmp_path / "run/export", adapter_name="style")
    assert not torch.equal(draw(pipeline), plain)
    assert {config.r for config in pipeline.unet.peft_config.values()} == {4}
    pipeline.unload_lora_weights()
    assert torch.equal(draw(pipeline), plain)


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(tmp_path, checkpoints, images):
    base, exports = checkpoints / "student-1step", {}
    values = options_of(tmp_path, images, base, lambda_adversarial=0.3, adversarial_start=1)
    for name, limits in {"whole": [RunLimits()], "stopped": [RunLimits(max_minutes=1e-4), RunLimits()]}.items():
        for limit in limits:
            run(Lora, LoraOptions, values | {"output": str(tmp_path / name)}, limit)
        exports[name] = load_file(tmp_path / name / "export/pytorch_lora_weights.safetensors")
        assert [record["step"] for record in read_records(tmp_path / name) if "loss_perceptual" in record] == [1, 2, 3]
    torch.testing.assert_close(exports["stopped"], exports["whole"], rtol=0, atol=0)
