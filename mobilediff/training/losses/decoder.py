"""What a decoder's images are held against: pixels, feature maps, and a discriminator of patches.

The loss of a latent diffusion model's autoencoder (arXiv 2112.10752, section 3.1).
"""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator
from torch import nn

from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.engine.options import TrainingOptions
from mobilediff.training.engine.trainer import Draws, Trainer
from mobilediff.training.losses.perceptual import PerceptualLoss


class DecoderLossOptions(TrainingOptions):
    """Options of a stage that trains a decoder.

    Attributes:
        perceptual: folder of the trained `ImageEncoder` whose feature maps are compared.
        lambda_perceptual: weight of the distance of feature maps, beside the 1 of the error of pixels.
        lambda_adversarial: norm of the adversarial term's gradient with respect to the batch, as a fraction of the
            other terms'; at 0 there is no discriminator. (VQGAN, arXiv 2012.09841, balances them at the last layer.)
        adversarial_start: first step of the decoder with that gradient; the discriminator is trained from step 0.
        discriminator_learning_rate: of the second optimiser.
    """

    perceptual: str
    lambda_perceptual: NonNegativeFloat = 1.0
    lambda_adversarial: NonNegativeFloat = 0.0
    adversarial_start: NonNegativeInt = 0
    discriminator_learning_rate: PositiveFloat = 1e-3

    @model_validator(mode="after")
    def _check_adversarial_start(self) -> Self:
        if self.lambda_adversarial and self.adversarial_start >= self.steps:
            raise ValueError(
                f"adversarial_start is {self.adversarial_start}, with {self.steps} steps and lambda_adversarial "
                f"{self.lambda_adversarial}; accepted is a step before the last, or lambda_adversarial 0"
            )
        return self

    def trial_values(self) -> dict:
        return super().trial_values() | {"adversarial_start": 1}


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


class DecoderLoss:
    """The terms, their gradients balanced in the images, and the discriminator with its optimiser.

    Args:
        trainer: its options are `DecoderLossOptions`.
        encoder: whose feature maps are compared.
        pixel_loss: of images and targets, a scalar.
    """

    def __init__(
        self,
        trainer: Trainer,
        encoder: ImageEncoder,
        pixel_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ):
        self.trainer, self.options, self.pixel_loss = trainer, trainer.options, pixel_loss
        self.perceptual = PerceptualLoss(encoder).to(trainer.device, memory_format=torch.channels_last)
        self.discriminator = None
        if self.options.lambda_adversarial:
            self.discriminator = PatchDiscriminator()
            self.module = trainer.add(
                "discriminator",
                self.discriminator,
                learning_rate=self.options.discriminator_learning_rate,
                ema_decay=0.0,
            )

    def __call__(
        self, decoded: torch.Tensor, targets: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compare float images [N, 3, H, W] in [-1, 1].

        Returns:
            A scalar that says nothing by its value, whose gradient is the decoder's, and the terms.
        """
        output = decoded.detach().requires_grad_()
        terms = {"loss_reconstruction": self.pixel_loss(output, targets)}
        with self.trainer.autocast():
            terms["loss_perceptual"] = self.perceptual(output, targets)
        loss = terms["loss_reconstruction"] + self.options.lambda_perceptual * terms["loss_perceptual"]
        gradient = gradient_in(output, loss)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            with self.trainer.autocast():
                terms["loss_adversarial"] = -self.discriminator(output).float().mean()  # bare: see `Discriminator`
            if draws.index >= self.options.adversarial_start:
                towards_real = gradient_in(output, terms["loss_adversarial"])
                gradient = gradient + self.options.lambda_adversarial * scaled_like(towards_real, gradient)
            self.discriminator.requires_grad_(True)
        return (decoded * gradient).sum(), terms

    def train_discriminator(self, decoded: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step of the discriminator, where there is one, on as many real images as decoded ones.

        Returns:
            Its loss, and the fractions of both that it has right.
        """
        if self.discriminator is None:
            return {}
        with self.trainer.autocast():
            logits_real, logits_fake = self.module(torch.cat([real, decoded.detach()])).float().chunk(2)
        loss = hinge_loss(logits_real, logits_fake)
        self.trainer.update("discriminator", loss)
        return {
            "loss_discriminator": loss,
            "real_share": (logits_real > 0).float().mean(),
            "fake_share": (logits_fake < 0).float().mean(),
        }
