"""Share options, loss and discriminator between the stages `decoder` and `tiny_vae`."""

from collections.abc import Callable
from typing import Generic, Self, TypeVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.engine.options import TrainingOptions
from mobilediff.training.engine.stage import Stage
from mobilediff.training.engine.trainer import Draws
from mobilediff.training.losses.decoder import DecoderLoss, PatchDiscriminator, patch_discriminator_loss
from mobilediff.training.losses.perceptual import PerceptualLoss


class DecoderStageOptions(TrainingOptions):
    """Configure a stage that trains a decoder.

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


DecoderStageOptionsT = TypeVar("DecoderStageOptionsT", bound=DecoderStageOptions)


class DecoderStage(Stage[DecoderStageOptionsT], Generic[DecoderStageOptionsT]):
    """Train a decoder and, where `lambda_adversarial` is not 0, a discriminator.

    `setup` calls `add_loss`.
    """

    def add_loss(
        self, encoder: ImageEncoder, pixel_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> None:
        """Make the decoder's loss and the discriminator.

        Args:
            encoder: its feature maps are compared.
            pixel_loss: of float images and targets [N, 3, H, W], a scalar.
        """
        options, self.discriminator, network = self.options, None, None
        if options.lambda_adversarial:
            network = PatchDiscriminator()
            self.discriminator = self.trainer.add(
                "discriminator", network, learning_rate=options.discriminator_learning_rate, ema_decay=0.0
            )
        self.decoder_loss = DecoderLoss(
            PerceptualLoss(encoder).to(self.trainer.device).to(memory_format=torch.channels_last),
            pixel_loss,
            lambda_perceptual=options.lambda_perceptual,
            discriminator=network,
            lambda_adversarial=options.lambda_adversarial,
            autocast=self.trainer.autocast,
        )

    def compare(
        self, decoded: torch.Tensor, targets: torch.Tensor, draws: Draws, **moments
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the decoder's loss of float images [N, 3, H, W]; see `DecoderLoss`, also for `moments`."""
        return self.decoder_loss(decoded, targets, draws.index >= self.options.adversarial_start, **moments)

    def train_discriminator(self, decoded: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """Train the discriminator, if any, on as many real images as decoded ones.

        Args:
            decoded, real: float images [N, 3, H, W] in [-1, 1].

        Returns:
            Figures to log.
        """
        if self.discriminator is None:
            return {}
        loss, figures = patch_discriminator_loss(self.discriminator, real, decoded, self.trainer.autocast)
        self.trainer.update("discriminator", loss)
        return figures
