"""Stage `end_to_end`."""

import copy
from operator import attrgetter

import pytest
import torch

from mobilediff.checkpoints import load_pipeline
from mobilediff.compression.pruning import prune_channels
from mobilediff.sampling.prompts import encode_text
from mobilediff.training import end_to_end
from mobilediff.training.bases.picture_stage import OneStepPictures
from mobilediff.training.end_to_end import EndToEnd, EndToEndOptions
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
        run(EndToEnd, EndToEndOptions, options)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_network_and_decoder_learn_the_encoder_stays_and_the_run_resumes(options, checkpoints, tmp_path):
    assert run(EndToEnd, EndToEndOptions, options)
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
    assert run(EndToEnd, EndToEndOptions, pruned)
    assert read_records(tmp_path / "pruned")[0]["loss_pixels"] > 1e-6
    exported = load_pipeline(tmp_path / "pruned/export")
    assert exported.unet.num_parameters() == small.num_parameters() < student.unet.num_parameters()

    rest = options | {"output": str(tmp_path / "resumed")}
    assert not run(EndToEnd, EndToEndOptions, rest, RunLimits(max_minutes=0.0))
    assert run(EndToEnd, EndToEndOptions, rest)
    whole, resumed = (load_state(tmp_path / name)[0] for name in ("run", "resumed"))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_training_for_int8_keeps_the_checkpoints_names_and_resumes(options, checkpoints, tmp_path, monkeypatch):
    student = load_pipeline(checkpoints / "student-1step")
    layers = ["unet.conv_out", "unet.mid_block.attentions.0.attn1.to_q", "decoder.decoder.conv_in"]
    monkeypatch.setattr(end_to_end, "quantized_layers", {"int8": layers}.__getitem__)
    monkeypatch.setattr(end_to_end, "CALIBRATE_EVERY", 2)
    options["int8_export"] = "int8"
    assert run(EndToEnd, EndToEndOptions, options)
    # the pictures of the start are those of the float student
    assert 0 < read_records(tmp_path / "run")[0]["loss_pixels"] < 0.01
    exported = load_pipeline(tmp_path / "run/export")
    for part in ("unet", "vae"):
        own, other = (attrgetter(part)(pipeline).state_dict() for pipeline in (exported, student))
        assert list(own) == list(other)
    weight = exported.unet.conv_out.weight
    steps = weight.flatten(1) / weight.flatten(1).abs().amax(1, keepdim=True) * 64
    assert (steps - steps.round()).abs().max() > 0.1
    state = load_state(tmp_path / "run")[0]
    assert sum(name.startswith("quantization/") and name.endswith(".scale") for name in state) == 2 * len(layers)

    rest = options | {"output": str(tmp_path / "resumed")}
    assert not run(EndToEnd, EndToEndOptions, rest, RunLimits(max_minutes=0.0))
    assert run(EndToEnd, EndToEndOptions, rest)
    resumed = load_state(tmp_path / "resumed")[0]
    assert all(torch.equal(resumed[name], value) for name, value in state.items())


def test_an_export_of_another_network_is_refused_before_any_work(options, tmp_path, monkeypatch):
    monkeypatch.setattr(end_to_end, "quantized_layers", lambda folder: ["unet.conv_in:2"])
    monkeypatch.setattr(end_to_end, "calibration_batch", lambda pipeline: [])
    with pytest.raises(ValueError, match="the layer to quantise is 'unet.conv_in:2'; accepted are the network's"):
        run(EndToEnd, EndToEndOptions, options | {"int8_export": "int8"})
    assert not (tmp_path / "run").exists()
