"""Tell real from repainted images by a frozen encoder's feature maps (projected GAN, arXiv 2111.01007).

Masks of ones make it tell images that are drawn as a whole. The discriminator has no more than two 1 x 1 convolutions
on each map, so that it costs a small part of the generator, and is told the caption (arXiv 1802.05637): else an image
would be real whatever it shows.
"""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn

HIDDEN_CHANNELS = 64


class FeatureHead(nn.Module):
    """Judge each place of one feature map.

    Args:
        channels: of the map.
        text_dim: of the pooled text.
    """

    def __init__(self, channels: int, text_dim: int):
        super().__init__()
        self.hidden = nn.Sequential(nn.Conv2d(channels + 1, HIDDEN_CHANNELS, 1), nn.SiLU())
        self.logits = nn.Conv2d(HIDDEN_CHANNELS, 1, 1)
        self.project = nn.Linear(text_dim, HIDDEN_CHANNELS)

    def forward(self, features: torch.Tensor, masks: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Compute logits of real, [B, 1, H, W], of features [B, C, H, W]; the rest as of `FeatureDiscriminator`."""
        shares = F.adaptive_avg_pool2d(masks, (features.shape[-2], features.shape[-1]))
        hidden = self.hidden(torch.cat([features, shares], dim=1))
        agreement = (self.project(text)[:, :, None, None] * hidden).sum(1, keepdim=True) / HIDDEN_CHANNELS**0.5
        return self.logits(hidden) + agreement


class FeatureDiscriminator(nn.Module):
    """Judge each place of an encoder's feature maps, told which places are repainted and what the image shows.

    Args:
        channels: of each map, finest first.
        text_dim: of the pooled text.
    """

    def __init__(self, channels: Sequence[int], text_dim: int):
        super().__init__()
        self.heads = nn.ModuleList(FeatureHead(count, text_dim) for count in channels)

    def forward(
        self, feature_maps: Sequence[torch.Tensor], masks: torch.Tensor, text: torch.Tensor
    ) -> list[torch.Tensor]:
        """Compute logits of real.

        Args:
            feature_maps: [B, C_i, H_i, W_i].
            masks: 1 where an image is repainted, [B, 1, H, W].
            text: pooled text of the captions, [B, D].

        Returns:
            [B, 1, H_i, W_i] of each map.
        """
        return [head(features, masks, text) for head, features in zip(self.heads, feature_maps, strict=True)]


def _over_masks(losses: list[torch.Tensor], masks: torch.Tensor) -> torch.Tensor:
    """Average losses [B, 1, H_i, W_i] over what is repainted, and sum them over the maps."""
    shares = (F.adaptive_avg_pool2d(masks, (loss.shape[-2], loss.shape[-1])) for loss in losses)
    return reduce(torch.add, ((loss * share).sum() / share.sum() for loss, share in zip(losses, shares, strict=True)))


def repainting_loss(
    discriminator: FeatureDiscriminator, feature_maps: Sequence[torch.Tensor], masks: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Compute -log D of repainted images, a scalar without a gradient in the discriminator's weights.

    Args:
        discriminator: not wrapped for several devices, which would wait for gradients that never come.
        feature_maps: of repainted images, with a gradient, [B, C_i, H_i, W_i].
        masks: 1 where they are repainted, [B, 1, H, W].
        text: pooled text of the captions, [B, D].
    """
    discriminator.requires_grad_(False)
    loss = _over_masks([F.softplus(-logits) for logits in discriminator(feature_maps, masks, text)], masks)
    discriminator.requires_grad_(True)
    return loss


def feature_discriminator_loss(
    discriminator: nn.Module,
    real: Sequence[torch.Tensor],
    fake: Sequence[torch.Tensor],
    masks: torch.Tensor,
    text: torch.Tensor,
) -> torch.Tensor:
    """Compute the discriminator's loss, -log D of real and -log (1 - D) of repainted images; a scalar.

    Args:
        discriminator: a `FeatureDiscriminator`, with a gradient in its weights.
        real, fake: feature maps of images and of the same ones repainted, without a gradient, [B, C_i, H_i, W_i].
        masks: 1 where they are repainted, [B, 1, H, W].
        text: pooled text of the captions, [B, D].
    """
    both = [torch.cat(maps) for maps in zip(real, fake, strict=True)]
    judged = discriminator(both, torch.cat([masks, masks]), torch.cat([text, text]))
    halves = [logits.chunk(2) for logits in judged]
    losses = [F.softplus(-real_logits) + F.softplus(fake_logits) for real_logits, fake_logits in halves]
    return _over_masks(losses, masks)
