"""Stage `tiny_vae`."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file

from mobilediff.checkpoints import load_component, load_pipeline, load_vae
from mobilediff.data import load_cifar10
from mobilediff.export import check_decoded_alike, export_pipeline
from mobilediff.images import resize_images, to_bytes, to_float
from mobilediff.models.autoencoder import decode, encode_latents
from mobilediff.training.engine.options import RunLimits, build_options, saved_options
from mobilediff.training.engine.pipelines import load_velocity_pipeline
from mobilediff.training.engine.trainer import Draws
from mobilediff.training.losses.moments import PictureMoments
from mobilediff.training.tiny_vae import TinyVae, TinyVaeOptions, load_students
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
        vae=str(checkpoints / "student" / "vae"),
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
    for turn, student in enumerate(start["students"]):
        decoded = to_bytes(load_pipeline(student).decode_latents(drawn["latents"][turn:8:2].float()))
        assert (decoded.int() - drawn["images"][turn:8:2].int()).abs().max() <= 8  # drawn in bf16


def test_the_small_vae_takes_the_place_of_the_full_one(trained, start, tmp_path):
    vae, pipeline = load_vae(trained / "export"), load_pipeline(start["students"][0])
    assert encode_latents(vae, torch.rand(2, 3, 32, 32) * 2 - 1).shape == (2, 4, 16, 16)
    pipeline.register_modules(vae=vae)
    export_pipeline(pipeline, tmp_path / "small")
    images = load_pipeline(tmp_path / "small")(class_labels=["cat"], output_type="pt").images
    assert images.shape == (1, 3, 32, 32) and images.isfinite().all()
    with pytest.raises(ValueError, match="small: its VAE is AutoencoderTiny; accepted is AutoencoderKL"):
        load_velocity_pipeline(str(tmp_path / "small"))


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
        ({"resolution": 64}, r"latents and images of \(4, 32, 32, 3, 64, 64\); accepted is \(4, 16, 16, 3, 64, 64\)"),
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


def other_decoder(checkpoint, bias):
    """Add to the decoder's last bias, and so to all pixels."""
    pipeline = load_pipeline(checkpoint)
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.bias.add_(bias)
    export_pipeline(pipeline, checkpoint)


def test_a_student_of_other_latents_is_refused(start, tmp_path):
    other = str(tiny_checkpoint(tmp_path / "other", "student-1step"))
    other_decoder(other, 1.0)
    refused = start | {"output": str(tmp_path / "refused"), "students": [start["students"][0], other]}
    with pytest.raises(ValueError, match="other: the images that two VAEs decode .* a PSNR of 6.0 dB"):
        run(TinyVae, TinyVaeOptions, refused)


def test_decoders_of_trials_are_not_compared(start, tmp_path):
    other = str(tiny_checkpoint(tmp_path / "other", "student-1step"))
    other_decoder(other, 1.0)
    vae = load_component(AutoencoderKL, start["vae"])
    assert len(load_students((other,), vae, trial=True)) == 1
    with pytest.raises(ValueError, match="PSNR of 6.0 dB"):
        load_students((other,), vae, trial=False)
    check_decoded_alike(load_pipeline(start["students"][0]), load_pipeline(start["students"][0]).vae, "equal")


def test_twice_the_resolution_is_learnt_from_enlarged_images_of_each_decoder(start, data_folder, tmp_path):
    other = str(tiny_checkpoint(tmp_path / "other", "student-1step"))
    other_decoder(other, 0.1)
    widths = {name: [8, 8, 8] for name in WIDTHS}
    small = AutoencoderTiny(**start["network"])
    small.save_pretrained(tmp_path / "small")
    options = start | {
        "output": str(tmp_path / "run"),
        "students": [other, *start["students"][:1]],
        "num_latents": 501,
        "resolution": 64,
        "initial_decoder": str(tmp_path / "small"),
        "network": widths | {"num_encoder_blocks": [0, 1, 1], "num_decoder_blocks": [1, 0, 0]},
        "lambda_moments": 0.1,
        "moments_start": 1,
        "sample_every": 3,
        "validation_samples": 260,
        "dtype": "fp32",
    }
    stage = TinyVae(build_options(TinyVaeOptions, options), RunLimits())
    stage.setup()
    started, drawn = stage.vae.state_dict(), small.state_dict()
    shared = [f"decoder.layers.{name}" for name in ("0.weight", "2.conv.0.weight", "4.weight")]
    assert all(torch.equal(started[name], drawn[name]) for name in shared)
    assert stage.images.shape == (24, 3, 64, 64) and stage.latents.shape == (2, 24, 4, 16, 16)
    native = load_cifar10(data_folder, "train").images
    assert torch.equal(stage.images, load_cifar10(data_folder, "train", 64).images)
    torch.testing.assert_close(
        stage.latents[0].float(), encode_latents(load_vae(start["vae"]), to_float(native)), rtol=1e-2, atol=1e-2
    )
    for turn, student in enumerate(options["students"]):
        decoded = to_bytes(load_pipeline(student).decode_latents(stage.synthetic.latents[turn:8:2].float()))
        enlarged = resize_images(decoded, 64)
        assert (enlarged.int() - stage.synthetic.images[turn:8:2].int()).abs().max() <= 2
    stage.trainer.fit(stage)
    records = read_records(tmp_path / "run")
    assert {f"loss_moments_{kind}" for kind in range(4)} <= set(records[0])
    assert {"psnr_db", "frechet_distance"} <= set(records[-1])
    pipeline = load_pipeline(start["students"][0])
    pipeline.register_modules(vae=load_vae(tmp_path / "run" / "export"))
    assert pipeline("a cat").images[0].size == (64, 64)


def test_moments_are_of_the_synthetic_pictures(start, tmp_path):
    options = {"output": str(tmp_path / "run"), "num_latents": 501, "lambda_moments": 0.1, "moments_start": 2}
    stage = TinyVae(build_options(TinyVaeOptions, start | options | {"dtype": "fp32"}), RunLimits())
    stage.setup()
    draws = Draws(0, torch.arange(4), torch.Generator().manual_seed(0))
    batch = stage.batch(draws)
    with torch.no_grad():
        pictures = decode(stage.vae, batch[0][stage.options.num_real :])
        encoder = stage.decoder_loss.perceptual.encoder
        expected = PictureMoments(stage.images, encoder, 0.995)(pictures, encoder(pictures).feature_maps)
    terms = stage.step(batch, draws)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name].detach(), value, rtol=1e-3, atol=1e-4)
