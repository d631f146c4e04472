"""Measure PSNR and Frechet distance of reconstructed images."""

from dataclasses import replace

import torch

from eval.extractors.features import FeatureSet
from eval.extractors.judge import judge_extractor
from eval.measures.frechet import measure_frechet_distance
from eval.protocol import tensor_sha256
from eval.samples.images import ImageSet
from mobilediff.checkpoints import VAE
from mobilediff.models.autoencoder import psnr, reconstruct


def reconstructed(vae: VAE, images: ImageSet, device: torch.device | str = "cpu") -> ImageSet:
    """Encode and decode the images, keeping their prompts and labels."""
    decoded = reconstruct(vae.to(device), images.images)  # pyright: ignore[reportArgumentType]
    protocol = images.protocol | {"images": f"{images.protocol['images']}, reconstructed"}
    return replace(images, images=decoded, protocol=protocol | {"images_sha256": tensor_sha256(decoded)})


def measure_reconstruction(vae: VAE, images: ImageSet, device: torch.device | str = "cpu") -> dict:
    """Measure PSNR of reconstructed images and their Frechet distance to CIFAR-10's training set.

    Returns:
        `psnr`, `latent_channels` and all that `measure_frechet_distance` returns; its `floor` is the distance of the
        images themselves where they are the test set.
    """
    restored = reconstructed(vae, images, device)
    result = measure_frechet_distance(FeatureSet(restored, device), judge_extractor())
    return {"psnr": psnr(images.images, restored.images), "latent_channels": vae.config["latent_channels"]} | result
