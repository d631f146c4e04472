"""Stage `end_to_end`."""

import copy
from operator import attrgetter

import pytest
import torch

from mobilediff.checkpoints import load_pipeline
from mobilediff.compression.pruning import prune_channels
from mobilediff.sampling.prompts import encode_text
from mobilediff.training.bases.picture_stage import OneStepPictures, PictureOptions
from mobilediff.training.end_to_end import EndToEnd
from mobilediff.training.engine.options import RunLimits
from mobilediff.training.engine.state import load_state
from tests.generators import generator
from tests.mobilediff.training.runs import read_records, run, tiny_encoder, tiny_options
from tests.tiny import tiny_pipeline


@pytest.fixture
def options(tmp_path, data_folder, checkpoints):
    return tiny_options(
        tmp_path / "run",
        data_folder,
        student=str(checkpoints / "student-1step"),
        vae=str(checkpoints / "student-1step/vae"),
        perceptual=tiny_encoder(tmp_path / "encoder"),
        latent_cache=str(tmp_path / "latents"),
        dtype="fp32",
        reconstruction_steps=1,
        learning_rate=0.01,
        sample_every=2,
    )


def test_a_picture_is_that_of_the_pipeline():
    pipeline = tiny_pipeline("student-1step")
    noise = torch.randn(2, 4, 16, 16, generator=generator(0))
    expected = pipeline(["a cat", "a ship"], latents=noise, output_type="pt", num_inference_steps=1).images
    hidden, pooled = encode_text(pipeline.tokenizer, pipeline.text_encoder, ["a cat", "a ship"])
    drawn = OneStepPictures(pipeline.unet, copy.deepcopy(pipeline.vae))(
        noise, torch.tensor([999, 999]), encoder_hidden_states=hidden, class_labels=pooled
    )
    torch.testing.assert_close(drawn.clamp(-1, 1) / 2 + 0.5, expected, atol=1e-5, rtol=0)


def test_a_student_of_more_steps_is_refused(options, checkpoints, tmp_path):
    options["student"] = str(checkpoints / "student-8step")
    with pytest.raises(ValueError, match="student-8step draws in 8 network calls; accepted is one"):
        run(EndToEnd, PictureOptions, options)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_network_and_decoder_learn_the_encoder_stays_and_the_run_resumes(options, checkpoints, tmp_path):
    assert run(EndToEnd, PictureOptions, options)
    exported, student = (load_pipeline(path) for path in (tmp_path / "run/export", checkpoints / "student-1step"))
    for part, learns in (("unet", True), ("vae.decoder", True), ("vae.encoder", False), ("text_encoder", False)):
        own, other = (attrgetter(part)(pipeline).state_dict() for pipeline in (exported, student))
        assert any(not torch.equal(own[name].half(), other[name].half()) for name in own) == learns
    record = read_records(tmp_path / "run")[0]
    assert {"loss_pixels", "loss_perceptual", "loss_moments_0", "loss_moments_1"} <= record.keys()
    assert record["loss_pixels"] < 1e-9  # the pictures of the start, but for rounding

    small = prune_channels(student.unet, 0.5)
    small.save_pretrained(tmp_path / "small")
    pruned = options | {"output": str(tmp_path / "pruned"), "initial_weights": str(tmp_path / "small")}
    assert run(EndToEnd, PictureOptions, pruned)
    assert read_records(tmp_path / "pruned")[0]["loss_pixels"] > 1e-6
    exported = load_pipeline(tmp_path / "pruned/export")
    assert exported.unet.num_parameters() == small.num_parameters() < student.unet.num_parameters()

    rest = options | {"output": str(tmp_path / "resumed")}
    assert not run(EndToEnd, PictureOptions, rest, RunLimits(max_minutes=0.0))
    assert run(EndToEnd, PictureOptions, rest)
    whole, resumed = (load_state(tmp_path / name)[0] for name in ("run", "resumed"))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
