"""Stage `vae`: diffusers' `AutoencoderKL` at f = 2, by reconstruction, KL and perceptual terms (arXiv 2112.10752)."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn
from torchvision.utils import make_grid

from mobilediff.checkpoints import load_component
from mobilediff.data import SPLITS, load_cifar10
from mobilediff.images import to_float
from mobilediff.models.autoencoder import encode, psnr, reconstruct
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.data.augment import random_flip
from mobilediff.training.engine.options import RunLimits, TrainingOptions, run_stage
from mobilediff.training.engine.trainer import Trainer, TrainingStep
from mobilediff.training.losses.perceptual import PerceptualLoss


@dataclass
class VaeOptions(TrainingOptions):
    """Options of the stage.

    Attributes:
        network: config of `AutoencoderKL`.
        perceptual: folder of the trained `ImageEncoder` whose feature maps are compared.
        lambda_kl: weight of the KL divergence to N(0, 1), averaged over latent values.
        lambda_perceptual: weight of the distance of feature maps.
    """

    network: dict = field(default_factory=dict)
    perceptual: str = ""
    lambda_kl: float = 1e-3
    lambda_perceptual: float = 0.3


class Autoencoding(nn.Module):
    """One pass through a VAE with given noise, as a single call that compiles and runs on several devices."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstructions [N, 3, H, W], and the KL divergence to N(0, 1) in nats a latent value, a scalar."""
        posterior = self.vae.encode(images).latent_dist
        decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        return decoded, posterior.kl().mean() / noise[0].numel()


@torch.no_grad()
def set_latent_statistics(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Write the mean and deviation of each latent channel over uint8 `images` into the config."""
    latents = torch.cat([encode(vae, to_float(batch)).float() for batch in images.split(250)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())


def train(options: VaeOptions, limits: RunLimits) -> bool:
    """Train the autoencoder; see `Trainer.fit` for the returned value."""
    dataset, test = (load_cifar10(options.data, split, options.resolution) for split in SPLITS)
    encoder = load_component(ImageEncoder, options.perceptual)
    trainer = Trainer(options, limits, len(dataset))
    perceptual = PerceptualLoss(encoder).to(trainer.device, memory_format=torch.channels_last)
    vae = AutoencoderKL(**options.network)
    module = trainer.add("vae", Autoencoding(vae))
    images, test_images = dataset.images.to(trainer.device), test.images[:1000].to(trainer.device)

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        batch = random_flip(to_float(images[step.indices]), step.generator).to(memory_format=torch.channels_last)
        noise = torch.randn(
            (len(batch), *latent_shape), generator=step.generator, device=trainer.device
        ).to(memory_format=torch.channels_last)  # fmt: skip
        with trainer.autocast():
            decoded, loss_kl = module(batch, noise)
            loss_perceptual = perceptual(decoded, batch)
        loss_reconstruction = F.l1_loss(decoded.float(), batch)
        loss = loss_reconstruction + options.lambda_kl * loss_kl + options.lambda_perceptual * loss_perceptual
        trainer.update("vae", loss)
        return {
            "loss_reconstruction": loss_reconstruction,
            "loss_kl": loss_kl,
            "loss_perceptual": loss_perceptual,
        }

    def on_sample(writer) -> dict[str, float]:
        with trainer.averaged_weights(), torch.no_grad(), trainer.autocast():
            shown = to_float(test_images[:16])
            pairs = torch.cat([shown, vae(shown).sample.float().clamp(-1, 1)])
            writer.add_image("reconstruction", make_grid(pairs / 2 + 0.5, nrow=16), trainer.step)
            return {"psnr_db": psnr(test_images, reconstruct(vae, test_images))}

    def on_export(folder: Path) -> None:
        set_latent_statistics(vae, images[:5000])
        # in float16, as pipelines are exported: every later stage then computes the same latents
        copy.deepcopy(vae).half().save_pretrained(folder)

    size = dataset.images.shape[-1] // 2 ** (len(vae.config.block_out_channels) - 1)
    latent_shape = (vae.config.latent_channels, size, size)
    return trainer.fit(step_function, on_export, on_sample)


if __name__ == "__main__":
    run_stage(train, VaeOptions)
