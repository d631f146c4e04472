"""Check reconstruction figures against closed forms."""

import math
from types import SimpleNamespace

import pytest
import torch

from eval.measures.reconstruction import measure_reconstruction
from eval.reconstruction import main
from mobilediff.models.autoencoder import psnr, reconstruct
from tests.eval.stand_ins import random_images
from tests.tiny import tiny_vae


class LosslessVAE(torch.nn.Module):
    """Latents are the images."""

    device = torch.device("cpu")
    config = {"latent_channels": 3}

    def encode(self, images, return_dict):
        return (SimpleNamespace(mean=images),)

    def decode(self, latents, return_dict):
        return (latents,)


def test_psnr_is_the_closed_form_and_a_mean_over_images():
    images = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    off = images.clone()
    off[0] += 1
    off[1] += 5
    expected = [10 * math.log10(255**2 / error**2) for error in (1, 5)]
    assert psnr(images, off) == pytest.approx(sum(expected) / 2)
    assert psnr(images, images) == 100
    for pair in ((images[:0], images[:0]), (images, images[:1])):
        with pytest.raises(ValueError, match=r"images are \(.*\) and \(.*\); accepted are two of one"):
            psnr(*pair)


def test_a_lossless_vae_gives_back_every_byte_in_any_batch_size():
    images = random_images(7).images
    assert torch.equal(reconstruct(LosslessVAE(), images, batch_size=3), images)


def test_reconstructions_of_a_vae_that_loses_are_farther_from_the_training_set(judge):
    images = random_images(200, 2)  # the stand-in's test split
    lossless, lossy = (measure_reconstruction(vae, images) for vae in (LosslessVAE(), tiny_vae()))
    assert lossless["psnr"] == 100 and lossless["frechet_distance_judge"] == pytest.approx(lossless["floor"])
    assert lossy["psnr"] < 30 and lossy["frechet_distance_judge"] > lossy["floor"]
    assert lossy["latent_channels"] == tiny_vae().config.latent_channels
    assert lossy["samples"]["images_sha256"] != lossless["samples"]["images_sha256"]


def test_a_folder_without_a_vae_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        main(["--vae", str(tmp_path / "nowhere")])
