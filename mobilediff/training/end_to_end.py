"""Train a one-step student and its small decoder together, on the pictures that they draw.

A loss of latents ends at what the autoencoder can show. Here mean and covariance of the pictures' features are taught
to be those of real images: of whole pictures, for what they show, and of places and patches, for texture (see
`losses.moments`). The picture that the student drew at the start, from the same noise, keeps prompt and seed what they
were.

With `int8_export` network and decoder compute as an int8 export of them does, so that they learn to draw well in int8.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import nn

from mobilediff.checkpoints import VAE, load_component, load_pipeline, load_vae
from mobilediff.diffusion import alpha_sigma, diffuse, sample_from_velocity, trailing_timesteps
from mobilediff.images import to_float
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import NormalisedLatentDecoder
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.training.bases.generator_stage import GeneratorStage
from mobilediff.training.data.latents import LatentData, training_images
from mobilediff.training.engine.fake_quantization import FakeQuantization, calibration_batch, quantized_layers
from mobilediff.training.engine.options import Fraction, GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws, Trainer
from mobilediff.training.losses.moments import PictureMoments
from mobilediff.training.losses.perceptual import feature_distance
from mobilediff.training.losses.weighted import weighted_sum

# Steps after which the ranges of int8 follow the weights.
CALIBRATE_EVERY = 50


class EndToEndOptions(GeneratorOptions):
    """Configure the stage `end_to_end`; the text encoder is the student's.

    Attributes:
        student: pipeline folder of the one-step student, the start of the network.
        vae: folder of the VAE with the small decoder, the start of that, and the encoder of the real images.
        initial_weights: folder of a network to start from instead, such as a pruned one; the student still draws the
            pictures of the start.
        perceptual: folder of the trained `ImageEncoder` whose feature maps are compared.
        num_intervals: timesteps of the student's own training.
        first_timestep_probability: fraction of the pictures from pure noise; the others start from noised images at
            all timesteps evenly.
        reconstruction_steps: first steps, in which moments are collected and the pictures do not follow them.
        lambda_pixels, lambda_perceptual: weights of the distance to the student's pictures of the start.
        lambda_moments: weight of the distance of the moments to those of real images.
        moments_decay: of the running moments.
        int8_export: folder of an int8 export of the student to ONNX; the layers that it quantises compute as in int8,
            for the run's own grids and figures as well, while the exported weights are float. None for float alone.
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
    int8_export: str | None = None


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
    """Train network and decoder."""

    def setup(self) -> None:
        options = self.options
        source = load_pipeline(options.student)
        if not source.config.guidance_distilled or source.nfe() != 1:
            raise ValueError(f"{options.student} draws in {source.nfe()} network calls; accepted is one")
        source.register_modules(vae=load_vae(options.vae))
        encoder, parts = load_component(ImageEncoder, options.perceptual), FrozenParts.of(source)
        unet = source.unet if options.initial_weights is None else load_component(MobileUNet, options.initial_weights)
        start, pictures = copy.deepcopy(OneStepPictures(source.unet, parts.vae)), OneStepPictures(unet, parts.vae)
        self.quantization = None
        if options.int8_export is not None:
            layers, self.calibration = quantized_layers(options.int8_export), calibration_batch(source)
            self.quantization = FakeQuantization(pictures, layers)
        dataset = training_images(options, self.limits)
        self.trainer = Trainer(options, self.limits, len(dataset))
        device = self.trainer.device
        for part in (parts.vae, parts.text_encoder):
            part.to(device).requires_grad_(False).eval()  # pyright: ignore[reportArgumentType]
        self.data, self.images = LatentData(self.trainer, options, parts, dataset), dataset.images.to(device)
        self.timesteps = trailing_timesteps(options.num_intervals, device)
        self.start = self.trainer.frozen(start)
        pictures.decoder.requires_grad_(True)
        self.pictures = self.trainer.add("pictures", pictures)
        self.encoder = self.trainer.frozen(encoder)
        self.moments = PictureMoments(self.images, self.encoder, options.moments_decay)
        self.trainer.keep("moments", self.moments)
        if self.quantization is not None:
            self.trainer.keep("quantization", self.quantization)
            self.calibrate(self.quantization)  # a state may be saved before the first step
        self.make_pipeline(parts, unet, source.scheduler, guidance_distilled=True)

    @torch.no_grad()
    def calibrate(self, quantization: FakeQuantization) -> None:
        """Take the ranges of int8 anew, on the inputs that an export of the present weights would take them on."""
        noise, hidden_states, pooled = (values.to(self.trainer.device) for values in self.calibration)
        timesteps = self.timesteps[:1].expand(len(noise))
        with self.trainer.autocast(), quantization.calibrating():
            self.pictures(noise, timesteps, encoder_hidden_states=hidden_states, class_labels=pooled)

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
        if self.quantization is not None and draws.index % CALIBRATE_EVERY == 0:
            self.calibrate(self.quantization)
        with self.trainer.autocast():
            with torch.no_grad():
                before = self.start(batch.noisy, batch.timesteps, **text).float()
            pictures = self.pictures(batch.noisy, batch.timesteps, **text).float()
        with self.trainer.autocast():
            maps = self.encoder(pictures).feature_maps
            with torch.no_grad():
                maps_before = self.encoder(before).feature_maps
        terms = {
            "loss_pixels": F.mse_loss(pictures, before),
            "loss_perceptual": feature_distance(maps, maps_before),
        }
        pure = batch.timesteps == self.timesteps[0]  # what one step draws; the others would hide its moments
        moments = self.moments(pictures[pure], [features[pure] for features in maps])
        lambda_moments = options.lambda_moments if draws.index >= options.reconstruction_steps else 0.0
        weights = {"loss_pixels": options.lambda_pixels, "loss_perceptual": options.lambda_perceptual}
        terms |= moments
        self.trainer.update("pictures", weighted_sum(terms, weights | dict.fromkeys(moments, lambda_moments)))
        return terms


if __name__ == "__main__":
    run_stage(EndToEnd, EndToEndOptions)
