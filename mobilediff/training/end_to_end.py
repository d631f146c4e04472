"""Train a one-step student and its small decoder together, on the pictures that they draw.

A loss of latents ends at what the autoencoder can show. Here two discriminators see pictures beside real images: one
of a frozen encoder's feature maps, told the caption, and one of patches of pixels, for the texture that those maps
leave out. The picture that the student drew at the start, from the same noise, keeps prompt and seed what they were
(GDD, arXiv 2405.20750, distils by a discriminator of feature maps alone).
"""

import copy
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from mobilediff.checkpoints import VAE, load_component, load_pipeline
from mobilediff.diffusion import alpha_sigma, diffuse, sample_from_velocity, trailing_timesteps
from mobilediff.images import to_float
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import NormalisedLatentDecoder
from mobilediff.training.bases.feature_adversary import FeatureAdversary
from mobilediff.training.bases.generator_stage import GeneratorStage
from mobilediff.training.data.latents import LatentData, training_images
from mobilediff.training.engine.options import Fraction, GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws, Trainer
from mobilediff.training.losses.decoder import PatchDiscriminator, patch_discriminator_loss
from mobilediff.training.losses.perceptual import feature_distance


class EndToEndOptions(GeneratorOptions):
    """Configure the stage `end_to_end`; the text encoder is the student's.

    Attributes:
        student: pipeline folder of the one-step student with its decoder: the start of both.
        perceptual: folder of the trained `ImageEncoder` whose feature maps are compared and told apart.
        num_intervals: timesteps of the student's own training.
        first_timestep_probability: fraction of the pictures from pure noise; the others start from noised images at
            all timesteps evenly.
        reconstruction_steps: first steps, in which the discriminators learn and the generator does not follow them.
        lambda_pixels, lambda_perceptual: weights of the distance to the student's pictures of the start.
        lambda_adversarial: weight of the discriminator of feature maps.
        lambda_patches: weight of the discriminator of patches.
        discriminator_learning_rate: of both.
    """

    student: str
    perceptual: str
    default_num_inference_steps: PositiveInt = 1
    default_guidance_scale: float = 1.0
    null_probability: Fraction = 0.0
    num_intervals: PositiveInt = 4
    first_timestep_probability: Fraction = 0.5
    reconstruction_steps: NonNegativeInt = 100
    lambda_pixels: NonNegativeFloat = 0.5
    lambda_perceptual: NonNegativeFloat = 0.3
    lambda_adversarial: NonNegativeFloat = 0.1
    lambda_patches: NonNegativeFloat = 0.01
    discriminator_learning_rate: PositiveFloat = 1e-3


class OneStepPictures(nn.Module):
    """Draw pictures in one step by a network and its decoder, in one call that compiles and runs on several devices.

    Args:
        unet, vae: whose modules it shares.
    """

    def __init__(self, unet: nn.Module, vae: VAE):
        super().__init__()
        self.unet, self.decoder = unet, NormalisedLatentDecoder(vae)

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, **text: torch.Tensor) -> torch.Tensor:
        """Draw images in [-1, 1], [B, 3, H, W].

        Args:
            noisy: latents, [B, C, h, w].
            timesteps: of these, [B].
            text: arguments of the network.
        """
        v = self.unet(noisy, timesteps, **text).sample.float()
        return self.decoder(sample_from_velocity(noisy, v, *alpha_sigma(timesteps)))


@dataclass
class PictureBatch:
    """Hold real images, captions, and what pictures are drawn from.

    Attributes:
        images: float32 [B, 3, H, W] in [-1, 1].
        caption_ids: int64 [B].
        noisy: latents, float32 [B, C, h, w].
        timesteps: of these, int64 [B].
    """

    images: torch.Tensor
    caption_ids: torch.Tensor
    noisy: torch.Tensor
    timesteps: torch.Tensor


class EndToEnd(GeneratorStage[EndToEndOptions]):
    """Train network and decoder, and two discriminators."""

    def setup(self) -> None:
        options = self.options
        source = load_pipeline(options.student)
        if not source.config.guidance_distilled or source.nfe() != 1:
            raise ValueError(f"{options.student} draws in {source.nfe()} network calls; accepted is one")
        encoder, parts = load_component(ImageEncoder, options.perceptual), FrozenParts.of(source)
        dataset = training_images(options, self.limits)
        self.trainer = Trainer(options, self.limits, len(dataset))
        device = self.trainer.device
        for part in (parts.vae, parts.text_encoder):
            part.to(device).requires_grad_(False).eval()  # pyright: ignore[reportArgumentType]
        self.data, self.images = LatentData(self.trainer, options, parts, dataset), dataset.images.to(device)
        self.timesteps = trailing_timesteps(options.num_intervals, device)
        pictures = OneStepPictures(source.unet.to(device), parts.vae)
        self.start = self.trainer.frozen(copy.deepcopy(pictures))
        pictures.decoder.requires_grad_(True)
        self.pictures = self.trainer.add("pictures", pictures)
        text_dim = self.data.conditioning.pooled.shape[1]
        self.adversary = FeatureAdversary(self.trainer, encoder, text_dim, options.discriminator_learning_rate)
        self.bare_patches = PatchDiscriminator()
        self.patches = self.trainer.add(
            "patches", self.bare_patches, learning_rate=options.discriminator_learning_rate, ema_decay=0.0
        )
        self.make_pipeline(parts, source.unet, source.scheduler, guidance_distilled=True)

    def batch(self, draws: Draws) -> PictureBatch:
        """Draw the step's images, each mirrored with probability one half, their captions, and noisy latents."""
        options, device, generator = self.options, self.trainer.device, draws.generator
        mirrored = self.data.draw_mirrored(draws)
        flip = (mirrored == 1)[:, None, None, None]
        images = self.images[draws.indices]
        images = to_float(torch.where(flip, images.flip(-1), images))
        count = len(draws.indices)
        from_noise = torch.rand(count, generator=generator, device=device) < options.first_timestep_probability
        interval = torch.randint(options.num_intervals, (count,), generator=generator, device=device)
        interval = torch.where(from_noise, 0, interval)
        latents, t = self.data.latents[mirrored, draws.indices].float(), self.timesteps[interval]
        z = diffuse(latents, t, generator)
        noise = torch.empty_like(latents).normal_(generator=generator)
        noisy = torch.where((interval == 0)[:, None, None, None], noise, z.noisy)
        images, noisy = (values.contiguous(memory_format=torch.channels_last) for values in (images, noisy))
        return PictureBatch(images, self.data.draw_captions(draws), noisy, t)

    def step(self, batch: PictureBatch, draws: Draws) -> dict[str, torch.Tensor]:
        options, text = self.options, self.data.conditioning(batch.caption_ids)
        with self.trainer.autocast():
            with torch.no_grad():
                before = self.start(batch.noisy, batch.timesteps, **text).float()
            pictures = self.pictures(batch.noisy, batch.timesteps, **text).float()
        everywhere, pooled = torch.ones_like(pictures[:, :1]), text["class_labels"]
        maps, other_maps = self.adversary.feature_maps(pictures, torch.cat([batch.images, before]))
        real_maps, maps_before = zip(*(both.chunk(2) for both in other_maps), strict=True)
        terms = {
            "loss_pixels": F.mse_loss(pictures, before),
            "loss_perceptual": feature_distance(maps, maps_before),
            "loss_adversarial": self.adversary.loss(maps, everywhere, pooled),
            "loss_patches": self.patch_loss(pictures),
        }
        factor = float(draws.index >= options.reconstruction_steps)
        weights = (
            options.lambda_pixels,
            options.lambda_perceptual,
            factor * options.lambda_adversarial,
            factor * options.lambda_patches,
        )
        self.trainer.update(
            "pictures", reduce(torch.add, (w * term for w, term in zip(weights, terms.values(), strict=True)))
        )
        terms["loss_discriminator"] = self.adversary.train(real_maps, maps, everywhere, pooled)
        loss, figures = patch_discriminator_loss(self.patches, batch.images, pictures, self.trainer.autocast)
        self.trainer.update("patches", loss)
        return terms | {f"patches_{name}": value for name, value in figures.items()}

    def patch_loss(self, pictures: torch.Tensor) -> torch.Tensor:
        """Compute the mean negative logit of pictures [B, 3, H, W]; no gradient in the discriminator's weights."""
        self.bare_patches.requires_grad_(False)
        with self.trainer.autocast():
            loss = -self.bare_patches(pictures).float().mean()
        self.bare_patches.requires_grad_(True)
        return loss


if __name__ == "__main__":
    run_stage(EndToEnd, EndToEndOptions)
