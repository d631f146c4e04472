"""Stage `decoder`: the autoencoder's decoder alone, trained on as a GAN (arXiv 2112.10752, section 3.1).

The encoder and so the latents stay as they are: every network that was trained on them can take the new decoder.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn
from torchvision.utils import make_grid

from mobilediff.checkpoints import load_component
from mobilediff.data import SPLITS, load_cifar10
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import LatentDecoder, latent_statistics
from mobilediff.training.augment import mirror, to_float
from mobilediff.training.generator import cached_latents
from mobilediff.training.options import RunLimits, TrainingOptions, run_stage
from mobilediff.training.perceptual import PerceptualLoss
from mobilediff.training.trainer import Trainer, TrainingStep
from mobilediff.training.vae import psnr, reconstruct


@dataclass
class DecoderOptions(TrainingOptions):
    """Options of the stage.

    Attributes:
        vae: folder of the trained autoencoder.
        perceptual: folder of the trained `ImageEncoder` whose feature maps are compared.
        lambda_perceptual: weight of the distance of feature maps, beside the mean absolute error's 1.
        lambda_adversarial: norm of the adversarial term's gradient with respect to the batch, as a share of the other
            terms'. (VQGAN, arXiv 2012.09841, balances the gradients at the last layer.)
        adversarial_start: first step of the decoder with that gradient; the discriminator is trained from step 0.
        discriminator_learning_rate: of the second optimiser.
        latent_cache: folder of encoded images, shared by runs.
    """

    vae: str = ""
    perceptual: str = ""
    lambda_perceptual: float = 0.05
    lambda_adversarial: float = 0.5
    adversarial_start: int = 0
    discriminator_learning_rate: float = 3e-4
    latent_cache: str = "runs/latents"

    def __post_init__(self):
        super().__post_init__()
        if self.lambda_adversarial and self.adversarial_start >= self.steps:
            raise ValueError(
                f"adversarial_start is {self.adversarial_start}, with {self.steps} steps and lambda_adversarial "
                f"{self.lambda_adversarial}; accepted is a step before the last, or lambda_adversarial 0"
            )


class PatchDiscriminator(nn.Sequential):
    """One logit a patch, [N, 3, H, W] -> [N, 1, H / 4, W / 4] (PatchGAN, arXiv 1611.07004, section 3.2.2)."""

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128)):
        layers = [nn.Conv2d(3, channels[0], 3, padding=1), nn.LeakyReLU(0.2)]
        for inner, outer in zip(channels, channels[1:], strict=False):
            layers += [nn.Conv2d(inner, outer, 4, stride=2, padding=1), nn.GroupNorm(8, outer), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(channels[-1], 1, 3, padding=1))


def hinge_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """The discriminator's loss on its logits (arXiv 1705.02894, eq. 4)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def scaled_like(gradient: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`gradient` at the length of `other`."""
    return gradient * (other.norm() / gradient.norm().clamp(min=1e-12))


def gradient_in(image: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    """d loss / d image, of a leaf; adds to the gradient of every other leaf that requires one."""
    image.grad = None
    loss.backward()
    return image.grad


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
    perceptual = PerceptualLoss(encoder).to(trainer.device, memory_format=torch.channels_last)
    vae.to(trainer.device)
    with trainer.accelerator.main_process_first():
        latents = cached_latents(vae, dataset, Path(options.latent_cache)).to(trainer.device)
    mean, std = latent_statistics(vae)
    images, test_images = dataset.images.to(trainer.device), test.images[:1000].to(trainer.device)
    module = trainer.add("decoder", LatentDecoder(vae).requires_grad_(True))
    discriminator = PatchDiscriminator()
    discriminator_module = trainer.add(
        "discriminator", discriminator, learning_rate=options.discriminator_learning_rate, ema_decay=0.0
    )

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        mirrored = torch.randint(0, 2, step.indices.shape, generator=step.generator, device=trainer.device)
        targets = mirror(to_float(images[step.indices]), mirrored.bool())
        targets = targets.contiguous(memory_format=torch.channels_last)
        encoded = latents[mirrored, step.indices].float() * std + mean
        with trainer.autocast():
            decoded = module(encoded.contiguous(memory_format=torch.channels_last)).float()
        output = decoded.detach().requires_grad_()
        discriminator.requires_grad_(False)
        with trainer.autocast():
            loss_perceptual = perceptual(output, targets)
            loss_adversarial = -discriminator(output).float().mean()  # the bare network: see `Critic`
        loss_reconstruction = F.l1_loss(output, targets)
        gradient = gradient_in(output, loss_reconstruction + options.lambda_perceptual * loss_perceptual)
        if step.index >= options.adversarial_start:
            towards_real = gradient_in(output, loss_adversarial)
            gradient = gradient + options.lambda_adversarial * scaled_like(towards_real, gradient)
        trainer.update("decoder", (decoded * gradient).sum())
        discriminator.requires_grad_(True)
        with trainer.autocast():
            real, fake = discriminator_module(torch.cat([targets, output.detach()])).float().chunk(2)
        loss_discriminator = hinge_loss(real, fake)
        trainer.update("discriminator", loss_discriminator)
        return {
            "loss_reconstruction": loss_reconstruction,
            "loss_perceptual": loss_perceptual,
            "loss_adversarial": loss_adversarial,
            "loss_discriminator": loss_discriminator,
            "real_share": (real > 0).float().mean(),
            "fake_share": (fake < 0).float().mean(),
        }

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
