"""Stage `tiny_vae`."""

import pytest
import torch
from safetensors.torch import load_file

from mobilediff.checkpoints import load_pipeline, load_vae
from mobilediff.export import export_pipeline
from mobilediff.images import to_bytes
from mobilediff.models.autoencoder import encode_latents
from mobilediff.training.engine.options import RunLimits, build_options, saved_options
from mobilediff.training.engine.pipelines import load_velocity_pipeline
from mobilediff.training.tiny_vae import TinyVae, TinyVaeOptions
from tests.mobilediff.training.runs import read_records, run, tiny_encoder, tiny_options
from tests.tiny import tiny_checkpoint

WIDTHS = {"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8]}


@pytest.fixture(scope="module")
def start(tmp_path_factory, data_folder, checkpoints):
    """Options of a run whose inputs are shared by the tests."""
    folder = tmp_path_factory.mktemp("inputs")
    return tiny_options(
        "",
        data_folder,
        students=[str(checkpoints / name) for name in ("student-1step", "student-8step")],
        num_latents=510,
        num_real=1,
        perceptual=tiny_encoder(folder / "image_encoder"),
        latent_cache=str(folder / "latents"),
        network=WIDTHS | {"num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 0]},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, start):
    """A finished run's folder."""
    folder = tmp_path_factory.mktemp("tiny-vae")
    options = start | {"output": str(folder / "run"), "sample_every": 3, "validation_samples": 260}
    assert run(TinyVae, TinyVaeOptions, options)
    return folder / "run"


def test_both_halves_learn_from_images_and_drawn_latents(trained, start):
    records = read_records(trained)
    assert {"loss_reconstruction", "loss_encoder", "loss_perceptual"} <= set(records[0])
    assert {"psnr_db", "class_accuracy", "recall"} <= set(records[-1])
    drawn = load_file(trained / "synthetic.safetensors")
    assert drawn["latents"].shape == (1020, 4, 16, 16) and drawn["images"].shape == (1020, 3, 32, 32)
    decoded = to_bytes(load_pipeline(start["students"][0]).decode_latents(drawn["latents"][:4].float()))
    assert (decoded.int() - drawn["images"][:4].int()).abs().max() <= 8  # drawn in bf16


def test_the_small_vae_takes_the_place_of_the_full_one(trained, start, tmp_path):
    vae, pipeline = load_vae(trained / "export"), load_pipeline(start["students"][0])
    assert encode_latents(vae, torch.rand(2, 3, 32, 32) * 2 - 1).shape == (2, 4, 16, 16)
    pipeline.register_modules(vae=vae)
    export_pipeline(pipeline, tmp_path / "small")
    images = load_pipeline(tmp_path / "small")(class_labels=["cat"], output_type="pt").images
    assert images.shape == (1, 3, 32, 32) and images.isfinite().all()
    with pytest.raises(ValueError, match="small: its VAE is AutoencoderTiny; accepted is AutoencoderKL"):
        load_velocity_pipeline(str(tmp_path / "small"))
    refused = start | {"output": str(tmp_path / "refused"), "students": [str(tmp_path / "small")]}
    with pytest.raises(ValueError, match="small: its VAE is AutoencoderTiny"):
        run(TinyVae, TinyVaeOptions, refused)


def test_a_discriminator_joins_where_it_has_a_weight(trained, start, tmp_path):
    options = start | {"output": str(tmp_path / "sharper"), "lambda_adversarial": 0.1, "adversarial_start": 2}
    assert run(TinyVae, TinyVaeOptions, options, RunLimits(dry_run=True))
    folder = tmp_path / "sharper-dry-run"
    assert saved_options(folder)["adversarial_start"] == 1 and saved_options(folder)["num_latents"] == 520
    figures = {"loss_adversarial", "loss_discriminator", "real_fraction", "fake_fraction"}
    assert figures <= set(read_records(folder)[-1]) and not figures & set(read_records(trained)[0])


def test_a_seed_gives_the_initial_weights(start, tmp_path):
    torch.manual_seed(1)  # whatever was drawn before
    stages, drawn = [], start | {"num_latents": 501, "students": start["students"][:1]}
    for name in "ab":
        stages.append(TinyVae(build_options(TinyVaeOptions, drawn | {"output": str(tmp_path / name)}), RunLimits()))
        stages[-1].setup()
        torch.randn(3)
    first, second = (stage.vae.state_dict() for stage in stages)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"students": []}, "students is empty"),
        ({"validation_samples": 100}, "validation_samples is 100"),
        ({"num_latents": 500}, "num_latents is 500"),
        ({"num_real": 4}, "num_real is 4"),
        ({"steps": 3, "lambda_adversarial": 0.1, "adversarial_start": 3}, "adversarial_start is 3, with 3 steps"),
        ({"network": WIDTHS | {"num_encoder_blocks": [1, 1], "num_decoder_blocks": [1]}}, "have the same length"),
        (
            {"network": WIDTHS | {"num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 1], "latent_channels": 8}},
            r"network: makes latents and images of \(8, 16, 16, 3, 32, 32\); accepted is \(4, 16, 16, 3, 32, 32\)",
        ),
    ],
)
def test_bad_options_are_named(start, tmp_path, changes, named):
    with pytest.raises(ValueError, match=named):
        run(TinyVae, TinyVaeOptions, start | {"output": str(tmp_path / "refused"), "num_latents": 501} | changes)


def test_students_of_two_vaes_are_refused(start, tmp_path):
    other = str(tiny_checkpoint(tmp_path / "other", "student-1step"))
    pipeline = load_pipeline(other)
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias.add_(1)
    export_pipeline(pipeline, other)
    refused = start | {"output": str(tmp_path / "refused"), "students": [start["students"][0], other]}
    with pytest.raises(ValueError, match="other has another VAE than"):
        run(TinyVae, TinyVaeOptions, refused)
