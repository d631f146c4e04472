"""Encode the training images once, keep their latents on disk, draw batches of them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mobilediff.captions import CaptionBank
from mobilediff.checkpoints import VAE, encoder_tensors
from mobilediff.data import ImageDataset, load_cifar10
from mobilediff.diffusion import any_timesteps
from mobilediff.images import to_float
from mobilediff.models.autoencoder import encode_latents
from mobilediff.models.latent_decoder import latent_statistics
from mobilediff.training.data.captioned import cached_tensors
from mobilediff.training.data.conditioning import ConditionedNetwork, Conditioning
from mobilediff.training.engine.options import GeneratorOptions, RunLimits, TrainingOptions
from mobilediff.training.engine.pipelines import FrozenParts
from mobilediff.training.engine.trainer import Draws, Trainer

NUM_PHRASINGS = 16  # of each name
TRIAL_IMAGES = 256


@dataclass
class Batch:
    """Hold latents with their captions.

    Attributes:
        latents: normalised, float32 [B, C, H, W], channels_last.
        caption_ids: rows of the `CaptionBank`'s texts, int64 [B].
    """

    latents: torch.Tensor
    caption_ids: torch.Tensor


class CaptionedData:
    """Draw captions of the training split, and call networks with them.

    Args:
        trainer: gives device and autocast.
        options: probabilities of the captions.
        parts: tokenizer and text encoder.
        dataset: the images.
    """

    def __init__(self, trainer: Trainer, options: GeneratorOptions, parts: FrozenParts, dataset: ImageDataset):
        self.options, self.device, self.autocast = options, trainer.device, trainer.autocast
        self.conditioning = Conditioning(parts, CaptionBank(num_phrasings=NUM_PHRASINGS), trainer.device)
        self.labels, self.noun_ids = dataset.labels.to(trainer.device), dataset.noun_ids.to(trainer.device)

    def draw_mirrored(self, draws: Draws) -> torch.Tensor:
        """Draw for each of the step's images whether it is mirrored, 0 or 1; int64 [B]."""
        return torch.randint(0, 2, draws.indices.shape, generator=draws.generator, device=self.device)

    def draw_captions(self, draws: Draws) -> torch.Tensor:
        """Draw a caption for each of the step's images: rows of the `CaptionBank`'s texts, int64 [B]."""
        return self.conditioning.bank.draw(
            self.labels[draws.indices],
            self.noun_ids[draws.indices],
            draws.generator,
            self.options.class_probability,
            self.options.null_probability,
            self.options.phrasing_probability,
        )

    def draw_timesteps(self, draws: Draws) -> torch.Tensor:
        """Draw a timestep for each of the step's images, evenly from 0 to 999; int64 [B]."""
        return any_timesteps(len(draws.indices), (0.0, 1.0), draws.generator, self.device)

    def conditioned(self, network: nn.Module) -> ConditionedNetwork:
        """Wrap a network, so that it is called with caption ids in the run's precision."""
        return ConditionedNetwork(network, self.conditioning, self.autocast)


class LatentData(CaptionedData):
    """Draw batches of the training split, normalised latents on the trainer's device.

    Args:
        trainer, options, parts, dataset: as of `CaptionedData`; the options name the folder of the latents, too, and
            the parts have the VAE.
    """

    def __init__(self, trainer: Trainer, options: GeneratorOptions, parts: FrozenParts, dataset: ImageDataset):
        super().__init__(trainer, options, parts, dataset)
        with trainer.accelerator.main_process_first():
            latents = cached_latents(parts.vae, dataset, Path(options.latent_cache))
        self.latents = latents.to(trainer.device)  # [2, N, C, H, W]

    def draw(self, draws: Draws) -> Batch:
        """Draw the step's latents, each mirrored with probability one half, and a caption each."""
        mirrored = self.draw_mirrored(draws)
        latents = self.latents[mirrored, draws.indices].float().contiguous(memory_format=torch.channels_last)
        return Batch(latents, self.draw_captions(draws))


def content_hash(tensors: Iterable[torch.Tensor], values: list) -> str:
    """Hash tensors of any shape and JSON values: 16 hexadecimal digits of SHA-256."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    digest.update(json.dumps(values).encode())
    return digest.hexdigest()[:16]


@torch.no_grad()
def cached_latents(vae: VAE, dataset: ImageDataset, folder: Path) -> torch.Tensor:
    """Encode all images and their mirror images, or read latents encoded before.

    The file's name is the hash of the encoder's weights and of the images, so that it can't be stale.

    Args:
        vae: the encoder.
        dataset: its images, uint8 [N, 3, H, W].
        folder: of the files.

    Returns:
        Normalised latents of plain and mirrored images, float16 [2, N, C, h, w], on the CPU.
    """
    statistics = [values.flatten().tolist() for values in latent_statistics(vae)]
    file = folder / f"{content_hash((*encoder_tensors(vae).values(), dataset.images), statistics)}.safetensors"

    def encode() -> dict[str, torch.Tensor]:
        encoded = []
        for images in (dataset.images, dataset.images.flip(-1)):
            batches = (
                to_float(batch.to(vae.device)).contiguous(memory_format=torch.channels_last)
                for batch in images.split(500)
            )
            encoded.append(torch.cat([encode_latents(vae, batch) for batch in batches]).half().cpu())
        return {"latents": torch.stack(encoded)}

    return cached_tensors(file, encode)["latents"]


def training_images(options: TrainingOptions, limits: RunLimits, resolution: int | None = None) -> ImageDataset:
    """Load the training split; a trial has its first images. Errors as in `load_cifar10`.

    Args:
        options, limits: of the run.
        resolution: of the images; None for the options'.
    """
    dataset = load_cifar10(options.data, "train", resolution or options.resolution)
    return dataset.head(TRIAL_IMAGES) if limits.trial else dataset


def prepare(options: GeneratorOptions, limits: RunLimits, frozen: FrozenParts) -> tuple[Trainer, LatentData]:
    """Make the trainer and the data of a generator's stage."""
    dataset = training_images(options, limits)
    trainer = Trainer(options, limits, len(dataset))
    for part in (frozen.vae, frozen.text_encoder):
        part.to(trainer.device).requires_grad_(False).eval()  # pyright: ignore[reportArgumentType]
    return trainer, LatentData(trainer, options, frozen, dataset)
