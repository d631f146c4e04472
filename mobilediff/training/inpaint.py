"""Fine-tune the one-step student to repaint the masked part of an image in one step.

It starts from the image with its hole filled by the surroundings' colours, noised to the second timestep. Its first
convolution takes the mask and that image's latents as well, with weights that start at 0. It learns to restore the
training images, by latents and by feature maps, while a discriminator of the repainted images' feature maps keeps what
it invents sharp.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from torchvision.utils import make_grid

from eval.samples.draw import draw
from mobilediff.checkpoints import load_component, load_pipeline, load_vae
from mobilediff.diffusion import diffuse, sample_from_velocity, trailing_timesteps
from mobilediff.downstream.inpaint import MobileDiffusionInpaintPipeline, filled
from mobilediff.downstream.masks import MASK_KINDS, draw_masks
from mobilediff.images import to_bytes, to_float
from mobilediff.models.autoencoder import encode_latents
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import NormalisedLatentDecoder
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.models.variants import variant
from mobilediff.training.bases.feature_adversary import FeatureAdversary
from mobilediff.training.bases.generator_stage import GeneratorStage, save_grid
from mobilediff.training.data.latents import CaptionedData, training_images
from mobilediff.training.engine.options import Fraction, GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws, Trainer, derived_seed
from mobilediff.training.losses.perceptual import feature_distance
from mobilediff.training.losses.weighted import weighted_sum

SHOWN = 16  # images of a grid


class InpaintOptions(GeneratorOptions):
    """Configure the stage `inpaint`; the text encoder is the student's.

    Attributes:
        student: pipeline folder of the one-step student.
        vae: folder of the VAE that encodes and decodes the images, and is exported.
        perceptual: folder of the trained `ImageEncoder` whose feature maps are compared and told apart.
        num_intervals: timesteps of the student's own training; pure noise, the first, is left out.
        hidden_probability: fraction of the images whose masked part is hidden, as at a strength of 1; the others are
            noised as they are, to the timesteps evenly.
        reconstruction_steps: first steps, in which the discriminator learns and the generator does not follow it.
        lambda_reconstruction, lambda_perceptual, lambda_adversarial: weights of the generator's terms.
        discriminator_learning_rate: of the second optimiser.
    """

    student: str
    vae: str
    perceptual: str
    default_num_inference_steps: PositiveInt = 1
    default_guidance_scale: float = 1.0
    null_probability: Fraction = 0.0
    num_intervals: int = Field(4, gt=1)
    hidden_probability: Fraction = 0.8
    reconstruction_steps: NonNegativeInt = 0
    lambda_reconstruction: NonNegativeFloat = 0.5
    lambda_perceptual: NonNegativeFloat = 0.3
    lambda_adversarial: NonNegativeFloat = 0.1
    discriminator_learning_rate: PositiveFloat = 1e-3

    @field_validator("validation_samples")
    @classmethod
    def _check_no_samples(cls, count: int) -> int:
        if count:
            raise ValueError(
                f"option validation_samples is {count}; accepted is 0: this stage measures what it repaints"
            )
        return count


@dataclass
class MaskedBatch:
    """Hold images with their masks and captions.

    Attributes:
        images: float32 [B, 3, H, W] in [-1, 1].
        masks: 1 where an image is repainted, float32 [B, 1, H, W].
        caption_ids: int64 [B].
    """

    images: torch.Tensor
    masks: torch.Tensor
    caption_ids: torch.Tensor


def widened(unet: MobileUNet) -> MobileUNet:
    """Copy the network with further input channels, a mask and masked latents, whose weights are 0."""
    wide = variant(unet, in_channels=2 * unet.config.in_channels + 1)
    weights = unet.state_dict()
    name, more = "conv_in.weight", wide.conv_in.in_channels - unet.conv_in.in_channels
    wide.load_state_dict({**weights, name: F.pad(weights[name], (0, 0, 0, 0, 0, more))})
    return wide


class Inpaint(GeneratorStage[InpaintOptions]):
    """Train the widened student and its discriminator."""

    pipeline_class = MobileDiffusionInpaintPipeline

    def setup(self) -> None:
        options = self.options
        source = load_pipeline(options.student)
        if not source.config.guidance_distilled or source.nfe() != 1:
            raise ValueError(f"{options.student} draws in {source.nfe()} network calls; accepted is one")
        source.register_modules(vae=load_vae(options.vae))
        encoder = load_component(ImageEncoder, options.perceptual)
        parts = FrozenParts.of(source)
        dataset = training_images(options, self.limits)
        self.trainer = Trainer(options, self.limits, len(dataset))
        self.labels = dataset.labels.tolist()
        self.images, unet = dataset.images.to(self.trainer.device), widened(source.unet)
        self.vae = parts.vae
        for part in (parts.vae, parts.text_encoder):
            part.to(self.trainer.device).requires_grad_(False).eval()  # pyright: ignore[reportArgumentType]
        self.captioned = CaptionedData(self.trainer, options, parts, dataset)
        self.generator = self.captioned.conditioned(self.trainer.add("unet", unet))
        self.decoder = self.trainer.frozen(NormalisedLatentDecoder(parts.vae))
        text_dim = self.captioned.conditioning.pooled.shape[1]
        self.adversary = FeatureAdversary(self.trainer, encoder, text_dim, options.discriminator_learning_rate)
        self.timesteps = trailing_timesteps(options.num_intervals, self.trainer.device)
        self.make_pipeline(parts, unet, source.scheduler, guidance_distilled=True)

    def batch(self, draws: Draws) -> MaskedBatch:
        """Draw the step's images, each mirrored with probability one half, with a caption and a mask each."""
        images = to_float(self.images[draws.indices])
        mirrored = self.captioned.draw_mirrored(draws)[:, None, None, None] == 1
        images = torch.where(mirrored, images.flip(-1), images).contiguous(memory_format=torch.channels_last)
        masks = self.draw_masks(len(images), images.shape[-1], draws.generator)
        return MaskedBatch(images, masks, self.captioned.draw_captions(draws))

    def draw_masks(self, count: int, size: int, generator: torch.Generator) -> torch.Tensor:
        """Draw masks of all kinds alike, [B, 1, S, S]."""
        kinds = torch.randint(0, len(MASK_KINDS), (count,), generator=generator, device=generator.device)
        masks = torch.stack([draw_masks(kind, count, size, generator) for kind in MASK_KINDS])
        return masks[kinds, torch.arange(count, device=generator.device)]

    def draw_starts(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw whether the masked part is hidden, bool [B], and the timestep to start from, int64 [B]."""
        options, device = self.options, generator.device
        hidden = torch.rand(count, generator=generator, device=device) < options.hidden_probability
        interval = torch.randint(1, options.num_intervals, (count,), generator=generator, device=device)
        return hidden, self.timesteps[torch.where(hidden, 1, interval)]

    def step(self, batch: MaskedBatch, draws: Draws) -> dict[str, torch.Tensor]:
        options, masks = self.options, batch.masks
        hidden, t = self.draw_starts(len(masks), draws.generator)
        with torch.no_grad():
            both = torch.cat([batch.images, filled(batch.images, masks)])
            expected, seen = encode_latents(self.vae, both).chunk(2)
        z = diffuse(torch.where(hidden[:, None, None, None], seen, expected), t, draws.generator)
        coarse_masks = F.max_pool2d(masks, masks.shape[-1] // z.noisy.shape[-1])
        v = self.generator(torch.cat([z.noisy, coarse_masks, seen], dim=1), t, batch.caption_ids)
        latents = sample_from_velocity(z.noisy, v, z.alpha, z.sigma)
        repainted = masks * self.decode(latents) + (1 - masks) * batch.images
        text = self.captioned.conditioning(batch.caption_ids)["class_labels"]
        fake_maps, real_maps = self.adversary.feature_maps(repainted, batch.images)
        terms = {
            "loss_reconstruction": F.mse_loss(latents, expected),
            "loss_perceptual": feature_distance(fake_maps, real_maps),
            "loss_adversarial": self.adversary.loss(fake_maps, masks, text),
        }
        lambda_adversarial = options.lambda_adversarial if draws.index >= options.reconstruction_steps else 0.0
        weights = {
            "loss_reconstruction": options.lambda_reconstruction,
            "loss_perceptual": options.lambda_perceptual,
            "loss_adversarial": lambda_adversarial,
        }
        self.trainer.update("unet", weighted_sum(terms, weights))
        terms["loss_discriminator"] = self.adversary.train(real_maps, fake_maps, masks, text)
        return terms

    def validate(self) -> dict[str, float]:
        """Draw a grid of training images, their holes filled, and repainted, into tensorboard and the run folder.

        Returns:
            `repainting_error`, the mean squared error of repainted pixels in [-1, 1].
        """
        generator = torch.Generator().manual_seed(derived_seed(0, "masks"))
        images, labels = self.images[:SHOWN].cpu(), self.labels[:SHOWN]
        masks = self.draw_masks(len(images), images.shape[-1], generator)
        self.pipeline.set_progress_bar_config(disable=True)
        with self.trainer.averaged_weights(), torch.no_grad(), self.trainer.autocast():
            repainted = draw(
                self.pipeline,
                "the run",
                list(range(len(images))),
                class_labels=labels,
                image=images / 255,
                mask_image=masks,
                num_inference_steps=self.options.sample_steps,
            )
        originals = to_float(images)
        rows = torch.cat([images, to_bytes(filled(originals, masks)), repainted])
        save_grid(make_grid(rows, nrow=len(images)), self.trainer)
        errors = (to_float(repainted) - originals).square().mean(1, keepdim=True)
        return {"repainting_error": (errors * masks).sum().item() / masks.sum().item()}

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents [B, C, h, w] to images [B, 3, H, W] in [-1, 1]."""
        with self.trainer.autocast():
            return self.decoder(latents).float()


if __name__ == "__main__":
    run_stage(Inpaint, InpaintOptions)
