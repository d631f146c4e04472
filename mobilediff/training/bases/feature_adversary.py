"""Train a discriminator of feature maps beside a network that makes images."""

from collections.abc import Sequence

import torch

from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.engine.trainer import Trainer
from mobilediff.training.losses.projected import FeatureDiscriminator, feature_discriminator_loss, repainting_loss


class FeatureAdversary:
    """Hold a frozen encoder and the discriminator of its feature maps.

    Args:
        trainer: trains the discriminator.
        encoder: its feature maps are told apart.
        text_dim: of the pooled text.
        learning_rate: of the discriminator.
    """

    def __init__(self, trainer: Trainer, encoder: ImageEncoder, text_dim: int, learning_rate: float):
        self._trainer, self._encoder = trainer, trainer.frozen(encoder)
        self._bare = FeatureDiscriminator(encoder.config["block_out_channels"], text_dim)
        self._discriminator = trainer.add("discriminator", self._bare, learning_rate=learning_rate, ema_decay=0.0)

    def feature_maps(self, fake: torch.Tensor, real: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Compute the feature maps of images [B, 3, H, W] in [-1, 1]; without a gradient of the real ones."""
        with self._trainer.autocast():
            fake_maps = self._encoder(fake).feature_maps
            with torch.no_grad():
                return [*fake_maps], [*self._encoder(real).feature_maps]

    def loss(self, fake_maps: Sequence[torch.Tensor], masks: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Compute the generator's loss; see `repainting_loss`."""
        with self._trainer.autocast():
            return repainting_loss(self._bare, fake_maps, masks, text)

    def train(
        self,
        real_maps: Sequence[torch.Tensor],
        fake_maps: Sequence[torch.Tensor],
        masks: torch.Tensor,
        text: torch.Tensor,
    ) -> torch.Tensor:
        """Train the discriminator one step; returns its loss, see `feature_discriminator_loss`."""
        with self._trainer.autocast():
            detached = [features.detach() for features in fake_maps]
            loss = feature_discriminator_loss(self._discriminator, real_maps, detached, masks, text)
        self._trainer.update("discriminator", loss)
        return loss
