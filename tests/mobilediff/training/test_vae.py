"""Stage `vae`."""

import torch
from diffusers import AutoencoderKL

from mobilediff.models.autoencoder import encode_latents
from mobilediff.training.vae import Vae, VaeOptions
from tests.mobilediff.training.runs import TINY_VAE, read_records, run, tiny_encoder, tiny_options


def test_the_export_holds_the_scale_of_its_latents(tmp_path, data_folder):
    perceptual = tiny_encoder(tmp_path / "image_encoder")
    values = tiny_options(tmp_path / "vae", data_folder, perceptual=perceptual, network=TINY_VAE, sample_every=3)
    assert run(Vae, VaeOptions, values)
    records = read_records(tmp_path / "vae")
    assert {"loss_reconstruction", "loss_kl", "loss_perceptual"} <= set(records[0]) and "psnr_db" in records[-1]
    trained = AutoencoderKL.from_pretrained(tmp_path / "vae" / "export")
    assert encode_latents(trained, torch.rand(2, 3, 32, 32) * 2 - 1).shape == (2, 4, 16, 16)
    assert len(trained.config.latents_mean) == len(trained.config.latents_std) == 4
