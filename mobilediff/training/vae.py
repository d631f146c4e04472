"""Train diffusers' `AutoencoderKL` at f = 2 by reconstruction, KL and perceptual terms (arXiv 2112.10752)."""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from pydantic import NonNegativeFloat
from torch import nn
from torchvision.utils import make_grid

from mobilediff.checkpoints import load_component
from mobilediff.data import SPLITS, load_cifar10
from mobilediff.images import to_float
from mobilediff.models.autoencoder import decode, encode, psnr, reconstruct
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.data.augment import random_flip
from mobilediff.training.engine.options import TrainingOptions
from mobilediff.training.engine.stage import Stage, run_stage
from mobilediff.training.engine.trainer import Draws, Trainer
from mobilediff.training.losses.perceptual import PerceptualLoss


class VaeOptions(TrainingOptions):
    """Configure the stage `vae`.

    Attributes:
        network: config of `AutoencoderKL`.
        perceptual: folder of the trained `ImageEncoder` whose feature maps are compared.
        lambda_kl: weight of the KL divergence to N(0, 1), averaged over latent values.
        lambda_perceptual: weight of the distance of feature maps.
    """

    network: dict
    perceptual: str
    lambda_kl: NonNegativeFloat = 1e-3
    lambda_perceptual: NonNegativeFloat = 0.05


class Autoencoding(nn.Module):
    """Encode and decode with given noise, in one call to compile and distribute."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruct images [N, 3, H, W] with noise [N, C, h, w].

        Returns:
            Reconstructions [N, 3, H, W], and the KL divergence to N(0, 1) in nats a latent value, a scalar.
        """
        posterior = self.vae.encode(images, return_dict=False)[0]
        decoded = decode(self.vae, posterior.mean + posterior.std * noise)
        return decoded, posterior.kl().mean() / noise[0].numel()


@torch.no_grad()
def set_latent_statistics(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Write each latent channel's mean and deviation over images into the config.

    Args:
        vae: its config is changed.
        images: uint8 [N, 3, H, W].
    """
    latents = torch.cat([encode(vae, to_float(batch)).float() for batch in images.split(250)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())


class Vae(Stage[VaeOptions]):
    """Train the autoencoder on images."""

    def setup(self) -> None:
        options = self.options
        dataset, test = (load_cifar10(options.data, split, options.resolution) for split in SPLITS)
        encoder = load_component(ImageEncoder, options.perceptual)
        self.trainer = Trainer(options, self.limits, len(dataset))
        device = self.trainer.device
        self.perceptual = PerceptualLoss(encoder).to(device).to(memory_format=torch.channels_last)
        self.vae = AutoencoderKL(**options.network)
        self.module = self.trainer.add("vae", Autoencoding(self.vae))
        self.images, self.test_images = dataset.images.to(device), test.images[:1000].to(device)
        size = dataset.images.shape[-1] // 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        self.latent_shape = (self.vae.config["latent_channels"], size, size)

    def batch(self, draws: Draws) -> torch.Tensor:
        """Draw the step's images, some mirrored, float [B, 3, H, W] in [-1, 1]."""
        images = random_flip(to_float(self.images[draws.indices]), draws.generator)
        return images.to(memory_format=torch.channels_last)

    def step(self, batch: torch.Tensor, draws: Draws) -> dict[str, torch.Tensor]:
        options = self.options
        noise = torch.randn(
            (len(batch), *self.latent_shape), generator=draws.generator, device=self.trainer.device
        ).to(memory_format=torch.channels_last)  # fmt: skip
        with self.trainer.autocast():
            decoded, loss_kl = self.module(batch, noise)
            loss_perceptual = self.perceptual(decoded, batch)
        loss_reconstruction = F.l1_loss(decoded.float(), batch)
        loss = loss_reconstruction + options.lambda_kl * loss_kl + options.lambda_perceptual * loss_perceptual
        self.trainer.update("vae", loss)
        return {
            "loss_reconstruction": loss_reconstruction,
            "loss_kl": loss_kl,
            "loss_perceptual": loss_perceptual,
        }

    def validate(self) -> dict[str, float]:
        with self.trainer.averaged_weights(), torch.no_grad(), self.trainer.autocast():
            shown = to_float(self.test_images[:16])
            pairs = torch.cat([shown, self.vae(shown).sample.float().clamp(-1, 1)])
            self.trainer.log_image("reconstruction", make_grid(pairs / 2 + 0.5, nrow=16))
            return {"psnr_db": psnr(self.test_images, reconstruct(self.vae, self.test_images))}

    def export(self, folder: Path) -> None:
        set_latent_statistics(self.vae, self.images[:5000])
        # in float16, as pipelines are exported: every later stage then computes the same latents
        copy.deepcopy(self.vae).half().save_pretrained(folder)


if __name__ == "__main__":
    run_stage(Vae, VaeOptions)
