"""Train the autoencoder's decoder further, alone, with a discriminator.

The encoder and so the latents stay as they are: every network that was trained on them can take the new decoder.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torchvision.utils import make_grid

from mobilediff.checkpoints import load_component
from mobilediff.data import load_cifar10
from mobilediff.images import to_float
from mobilediff.models.autoencoder import psnr, reconstruct
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import LatentDecoder, latent_statistics
from mobilediff.training.bases.decoder_stage import DecoderStage, DecoderStageOptions
from mobilediff.training.data.augment import mirror
from mobilediff.training.data.latents import cached_latents, training_images
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws, Trainer


class DecoderOptions(DecoderStageOptions):
    """Configure the stage `decoder`.

    Attributes:
        vae: folder of the trained autoencoder.
        latent_cache: folder of encoded images, shared by runs.
    """

    vae: str
    latent_cache: str = "runs/latents"


class Decoder(DecoderStage[DecoderOptions]):
    """Train the decoder, and its discriminator where the options give that a weight."""

    def setup(self) -> None:
        options = self.options
        encoder = load_component(ImageEncoder, options.perceptual)
        self.vae = load_component(AutoencoderKL, options.vae).float().requires_grad_(False)
        if self.vae.config.latents_mean is None or self.vae.config.latents_std is None:
            raise ValueError(f"{options.vae}: the config holds no latents_mean and latents_std")
        dataset = training_images(options, self.limits)
        test = load_cifar10(options.data, "test", options.resolution)
        self.trainer = Trainer(options, self.limits, len(dataset))
        device = self.trainer.device
        self.vae.to(device)
        with self.trainer.accelerator.main_process_first():
            self.latents = cached_latents(self.vae, dataset, Path(options.latent_cache)).to(device)
        self.mean, self.std = latent_statistics(self.vae)
        self.images, self.test_images = dataset.images.to(device), test.images[:1000].to(device)
        self.decoder = self.trainer.add("decoder", LatentDecoder(self.vae).requires_grad_(True))
        self.add_loss(encoder, F.l1_loss)

    def batch(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the step's latents and their images, some mirrored.

        Returns:
            Latents, float32 [B, C, h, w], as the decoder takes them, and images, float32 [B, 3, H, W] in [-1, 1].
        """
        mirrored = torch.randint(0, 2, draws.indices.shape, generator=draws.generator, device=self.trainer.device)
        images = mirror(to_float(self.images[draws.indices]), mirrored.bool())
        latents = self.latents[mirrored, draws.indices].float() * self.std + self.mean
        channels_last = torch.channels_last
        return latents.contiguous(memory_format=channels_last), images.contiguous(memory_format=channels_last)

    def step(self, batch: tuple[torch.Tensor, torch.Tensor], draws: Draws) -> dict[str, torch.Tensor]:
        latents, images = batch
        with self.trainer.autocast():
            decoded = self.decoder(latents).float()
        loss, terms = self.compare(decoded, images, draws)
        self.trainer.update("decoder", loss)
        return terms | self.train_discriminator(decoded, images)

    def validate(self) -> dict[str, float]:
        with self.trainer.averaged_weights(), torch.no_grad(), self.trainer.autocast():
            restored = reconstruct(self.vae, self.test_images)
            pairs = torch.cat([self.test_images[:16], restored[:16]])
            self.trainer.log_image("reconstruction", make_grid(pairs, nrow=16))
            return {"psnr_db": psnr(self.test_images, restored)}

    def export(self, folder: Path) -> None:
        copy.deepcopy(self.vae).half().save_pretrained(folder)


if __name__ == "__main__":
    run_stage(Decoder, DecoderOptions)
