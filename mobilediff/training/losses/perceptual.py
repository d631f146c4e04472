"""Feature maps compared: of images, and of the images that latents decode to."""

import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.checkpoints import VAE
from mobilediff.images import to_bytes, to_float
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import LatentDecoder, latent_statistics
from mobilediff.training.engine.trainer import Trainer

BATCH_SIZE = 250


class PerceptualLoss(nn.Module):
    """Squared distance of channel-normalised feature maps, summed over levels.

    LPIPS (arXiv 1801.03924, eq. 1) without its learnt weights of the channels.
    """

    def __init__(self, encoder: ImageEncoder):
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compare float images [N, 3, H, W] in [-1, 1]; returns a scalar."""
        with torch.no_grad():
            expected = self.encoder(targets).feature_maps
        return sum(
            (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
            for a, b in zip(self.encoder(images).feature_maps, expected, strict=True)
        )


class LatentPerceptualLoss:
    """`PerceptualLoss` of what normalised latents decode to; the targets are decoded once.

    Args:
        trainer: its device and precision.
        encoder: whose feature maps are compared.
        vae: that decodes.
        targets: all latents that samples are ever compared with, [N, C, h, w].
    """

    def __init__(self, trainer: Trainer, encoder: ImageEncoder, vae: VAE, targets: torch.Tensor):
        self.trainer = trainer
        self.mean, self.std = latent_statistics(vae)
        self.decoder = trainer.frozen(LatentDecoder(vae))
        self.loss = PerceptualLoss(encoder).to(trainer.device, memory_format=torch.channels_last)
        with torch.no_grad():
            decoded = [to_bytes(self._decode(batch.float())) for batch in targets.split(BATCH_SIZE)]
        self.targets = torch.cat(decoded)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        with self.trainer.autocast():
            return self.decoder(latents * self.std + self.mean)

    def __call__(self, latents: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Compare latents [B, C, h, w] with the targets in `rows`, [B]; returns a scalar."""
        images = self._decode(latents)
        with self.trainer.autocast():
            return self.loss(images, to_float(self.targets[rows]))
