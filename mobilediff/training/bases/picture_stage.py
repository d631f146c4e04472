"""Train a one-step network and its small decoder on the pictures that they draw: the base of such stages."""

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import nn

from mobilediff.checkpoints import VAE, load_component, load_pipeline, load_vae
from mobilediff.diffusion import alpha_sigma, diffuse, sample_from_velocity, trailing_timesteps
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import NormalisedLatentDecoder
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.bases.generator_stage import GeneratorStage
from mobilediff.training.data.latents import LatentData, training_images
from mobilediff.training.engine.options import Fraction, GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts
from mobilediff.training.engine.trainer import Draws, Trainer
from mobilediff.training.losses.moments import PictureMoments
from mobilediff.training.losses.perceptual import feature_distance
from mobilediff.training.losses.weighted import weighted_sum


class PictureOptions(GeneratorOptions):
    """Configure a stage that trains on pictures; the text encoder is the student's.

    Attributes:
        student: pipeline folder of the one-step student, the start of the network.
        vae: folder of the VAE with the small decoder, the start of that, and the encoder of the real images.
        initial_weights: folder of a network to start from instead; the student still draws the pictures of the start.
        perceptual: folder of the trained `ImageEncoder` whose feature maps are compared.
        num_intervals: timesteps of the student's own training.
        first_timestep_probability: fraction of the pictures from pure noise; the others start from noised images at
            all timesteps evenly.
        reconstruction_steps: first steps, in which moments are collected and the pictures do not follow them.
        lambda_pixels, lambda_perceptual: weights of the distance to the student's pictures of the start.
        lambda_moments: weight of the distance of the moments to those of real images.
        moments_decay: of the running moments.
    """

    student: str
    vae: str
    perceptual: str
    initial_weights: str | None = None
    default_num_inference_steps: PositiveInt = 1
    default_guidance_scale: float = 1.0
    null_probability: Fraction = 0.0
    num_intervals: PositiveInt = 4
    first_timestep_probability: Fraction = 0.75
    reconstruction_steps: NonNegativeInt = 60
    lambda_pixels: NonNegativeFloat = 0.5
    lambda_perceptual: NonNegativeFloat = 0.1
    lambda_moments: NonNegativeFloat = 1.0
    moments_decay: Fraction = 0.995


PictureOptionsT = TypeVar("PictureOptionsT", bound=PictureOptions)


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
    """Hold what pictures are drawn from.

    Attributes:
        text: arguments of the network.
        noisy: latents, float32 [B, C, h, w].
        timesteps: of these, int64 [B].
    """

    text: dict[str, torch.Tensor]
    noisy: torch.Tensor
    timesteps: torch.Tensor


class PictureStage(GeneratorStage[PictureOptionsT], Generic[PictureOptionsT]):
    """Train network and decoder; `network` makes the former.

    A loss of latents ends at what the autoencoder can show. Here mean and covariance of the pictures' features are
    taught to be those of real images: of whole pictures, for what they show, and of places and patches, for texture
    (see `losses.moments`). The picture that the student drew at the start, from the same noise, keeps prompt and seed
    what they were.
    """

    def setup(self) -> None:
        options = self.options
        source = load_pipeline(options.student)
        if not source.config.guidance_distilled or source.nfe() != 1:
            raise ValueError(f"{options.student} draws in {source.nfe()} network calls; accepted is one")
        source.register_modules(vae=load_vae(options.vae))
        self.check(source)
        encoder, parts = load_component(ImageEncoder, options.perceptual), FrozenParts.of(source)
        dataset = training_images(options, self.limits)
        self.trainer = Trainer(options, self.limits, len(dataset))
        device = self.trainer.device
        for part in (parts.vae, parts.text_encoder):
            part.to(device).requires_grad_(False).eval()  # pyright: ignore[reportArgumentType]
        self.data = LatentData(self.trainer, options, parts, dataset)
        self.timesteps = trailing_timesteps(options.num_intervals, device)
        self.start = self.trainer.frozen(copy.deepcopy(OneStepPictures(source.unet, parts.vae)))
        self.unet = self.network(source.unet)
        pictures = OneStepPictures(self.unet, parts.vae)
        pictures.decoder.requires_grad_(True)
        self.pictures = self.trainer.add("pictures", pictures)
        self.encoder = self.trainer.frozen(encoder)
        self.moments = PictureMoments(dataset.images.to(device), self.encoder, options.moments_decay)
        self.trainer.keep("moments", self.moments)
        self.make_pipeline(parts, self.unet, source.scheduler, guidance_distilled=True)

    def check(self, student: MobileDiffusionPipeline) -> None:
        """Refuse what does not fit the student, before there is a run folder."""

    def network(self, student: MobileUNet) -> MobileUNet:
        """Return the network to train, which may be the student's own."""
        raise NotImplementedError

    def batch(self, draws: Draws) -> PictureBatch:
        """Draw captions and noisy latents of the step's images, each mirrored with probability one half."""
        options, device, generator = self.options, self.trainer.device, draws.generator
        mirrored = self.data.draw_mirrored(draws)
        count = len(draws.indices)
        from_noise = torch.rand(count, generator=generator, device=device) < options.first_timestep_probability
        interval = torch.randint(options.num_intervals, (count,), generator=generator, device=device)
        interval = torch.where(from_noise, 0, interval)
        latents, t = self.data.latents[mirrored, draws.indices].float(), self.timesteps[interval]
        z = diffuse(latents, t, generator)
        noise = torch.empty_like(latents).normal_(generator=generator)
        noisy = torch.where((interval == 0)[:, None, None, None], noise, z.noisy)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return PictureBatch(self.data.conditioning(self.data.draw_captions(draws)), noisy, t)

    def draw(self, network: nn.Module, batch: PictureBatch) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Draw a batch's pictures, float32 [B, 3, H, W], by an `OneStepPictures`, and compute their feature maps."""
        with self.trainer.autocast():
            pictures = network(batch.noisy, batch.timesteps, **batch.text).float()
            return pictures, self.encoder(pictures).feature_maps

    def forward(self, batch: PictureBatch, draws: Draws) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Draw a step's pictures by what is trained; see `draw`."""
        return self.draw(self.pictures, batch)

    def distances(
        self, drawn: tuple[torch.Tensor, list[torch.Tensor]], before: tuple[torch.Tensor, list[torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Compute the distances of pictures to those of the start, both from `draw`, by the names of their terms."""
        (pictures, maps), (pictures_before, maps_before) = drawn, before
        return {
            "loss_pixels": F.mse_loss(pictures, pictures_before),
            "loss_perceptual": feature_distance(maps, maps_before),
        }

    @property
    def distance_weights(self) -> dict[str, float]:
        """The weights of the terms of `distances`."""
        return {"loss_pixels": self.options.lambda_pixels, "loss_perceptual": self.options.lambda_perceptual}

    def step(self, batch: PictureBatch, draws: Draws) -> dict[str, torch.Tensor]:
        options = self.options
        with torch.no_grad():
            before = self.draw(self.start, batch)
        drawn = pictures, maps = self.forward(batch, draws)
        terms = self.distances(drawn, before)
        pure = batch.timesteps == self.timesteps[0]  # what one step draws; the others would hide its moments
        moments = self.moments(pictures[pure], [features[pure] for features in maps])
        lambda_moments = options.lambda_moments if draws.index >= options.reconstruction_steps else 0.0
        terms |= moments
        weights = self.distance_weights | dict.fromkeys(moments, lambda_moments)
        self.trainer.update("pictures", weighted_sum(terms, weights))
        return terms
