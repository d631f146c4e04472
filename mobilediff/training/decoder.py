"""Stage `decoder`: the autoencoder's decoder alone, trained on with a discriminator.

The encoder and so the latents stay as they are: every network that was trained on them can take the new decoder.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torchvision.utils import make_grid

from mobilediff.checkpoints import load_component
from mobilediff.data import SPLITS, load_cifar10
from mobilediff.images import to_float
from mobilediff.models.autoencoder import psnr, reconstruct
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import LatentDecoder, latent_statistics
from mobilediff.training.data.augment import mirror
from mobilediff.training.data.latents import cached_latents
from mobilediff.training.engine.options import RunLimits, run_stage
from mobilediff.training.engine.trainer import Trainer, TrainingStep
from mobilediff.training.losses.decoder import (
    DecoderLoss,
    DecoderLossOptions,
    PatchDiscriminator,
    patch_discriminator_loss,
)
from mobilediff.training.losses.perceptual import PerceptualLoss


@dataclass
class DecoderOptions(DecoderLossOptions):
    """Options of the stage.

    Attributes:
        vae: folder of the trained autoencoder.
        latent_cache: folder of encoded images, shared by runs.
    """

    vae: str = ""
    latent_cache: str = "runs/latents"


def train(options: DecoderOptions, limits: RunLimits) -> bool:
    """Train decoder and discriminator; see `Trainer.fit` for the returned value."""
    encoder = load_component(ImageEncoder, options.perceptual)
    vae = load_component(AutoencoderKL, options.vae).float().requires_grad_(False)
    if vae.config.latents_mean is None or vae.config.latents_std is None:
        raise ValueError(f"{options.vae}: the config holds no latents_mean and latents_std")
    dataset, test = (load_cifar10(options.data, split, options.resolution) for split in SPLITS)
    if limits.trial:
        dataset, options.adversarial_start = dataset.head(256), 1
    trainer = Trainer(options, limits, len(dataset))
    vae.to(trainer.device)
    with trainer.accelerator.main_process_first():
        latents = cached_latents(vae, dataset, Path(options.latent_cache)).to(trainer.device)
    mean, std = latent_statistics(vae)
    images, test_images = dataset.images.to(trainer.device), test.images[:1000].to(trainer.device)
    module = trainer.add("decoder", LatentDecoder(vae).requires_grad_(True))
    discriminator = PatchDiscriminator() if options.lambda_adversarial else None
    if discriminator is not None:
        trained_discriminator = trainer.add(
            "discriminator", discriminator, learning_rate=options.discriminator_learning_rate, ema_decay=0.0
        )
    decoder_loss = DecoderLoss(
        PerceptualLoss(encoder).to(trainer.device, memory_format=torch.channels_last),
        F.l1_loss,
        lambda_perceptual=options.lambda_perceptual,
        discriminator=discriminator,
        lambda_adversarial=options.lambda_adversarial,
        autocast=trainer.autocast,
    )

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        mirrored = torch.randint(0, 2, step.indices.shape, generator=step.generator, device=trainer.device)
        targets = mirror(to_float(images[step.indices]), mirrored.bool())
        targets = targets.contiguous(memory_format=torch.channels_last)
        encoded = latents[mirrored, step.indices].float() * std + mean
        with trainer.autocast():
            decoded = module(encoded.contiguous(memory_format=torch.channels_last)).float()
        loss, terms = decoder_loss(decoded, targets, step.index >= options.adversarial_start)
        trainer.update("decoder", loss)
        if discriminator is not None:
            loss, figures = patch_discriminator_loss(trained_discriminator, targets, decoded, trainer.autocast)
            trainer.update("discriminator", loss)
            terms |= figures
        return terms

    def on_sample(writer) -> dict[str, float]:
        with trainer.averaged_weights(), torch.no_grad(), trainer.autocast():
            restored = reconstruct(vae, test_images)
            pairs = torch.cat([test_images[:16], restored[:16]])
            writer.add_image("reconstruction", make_grid(pairs, nrow=16), trainer.step)
            return {"psnr_db": psnr(test_images, restored)}

    def on_export(folder: Path) -> None:
        copy.deepcopy(vae).half().save_pretrained(folder)

    return trainer.fit(step_function, on_export, on_sample)


if __name__ == "__main__":
    run_stage(train, DecoderOptions)
