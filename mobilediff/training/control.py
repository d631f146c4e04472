"""Train a MobileControlNet on a frozen student: to draw the edges and colours of real images.

A student of several steps learns it as ControlNet does (arXiv 2302.05543): it denoises real images, given their edges
and colours. A one-step student draws pictures from noise, which are compared with the real images of the conditions.
Edges leave colours and textures open, so that the nearest picture to all real images of an edge map is a grey mean.
Feature maps are therefore compared where colours are given alone. Where none are, the student's own picture from the
same noise gives them. What keeps the pictures sharp are the moments of their features, taught to be real images' for
edges, colours and both apart (see `losses.moments`).
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import nn
from torchvision.utils import make_grid

from eval.samples.draw import draw
from mobilediff.captions import CaptionBank
from mobilediff.checkpoints import load_component, load_pipeline, load_vae
from mobilediff.diffusion import NUM_TRAIN_TIMESTEPS, alpha_sigma, diffuse, sample_from_velocity, trailing_timesteps
from mobilediff.downstream.conditions import canny_edges, color_maps
from mobilediff.downstream.control import COLOR_MAP_SIZES, MobileDiffusionControlPipeline
from mobilediff.export import export_pipeline
from mobilediff.images import to_float
from mobilediff.models.autoencoder import encode_latents
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.latent_decoder import NormalisedLatentDecoder
from mobilediff.models.mobile_controlnet import MobileControlNet
from mobilediff.sampling.scheduling import distilled_steps
from mobilediff.training.bases.generator_stage import save_grid
from mobilediff.training.data.conditioning import Conditioning
from mobilediff.training.data.latents import NUM_PHRASINGS, training_images
from mobilediff.training.engine.options import Fraction, TrainingOptions
from mobilediff.training.engine.pipelines import FrozenParts
from mobilediff.training.engine.stage import Stage, run_stage
from mobilediff.training.engine.trainer import Draws, Trainer
from mobilediff.training.losses.control import color_loss, edge_loss
from mobilediff.training.losses.moments import PictureMoments
from mobilediff.training.losses.perceptual import feature_distances
from mobilediff.training.losses.weighted import weighted_sum

GRID_IMAGES = 16
# Whether edges and colours are given, each way in every third step.
WAYS = ((True, True), (True, False), (False, True))


class ControlOptions(TrainingOptions):
    """Configure the stage `control`; the text encoder is the student's.

    Attributes:
        student: pipeline folder of a distilled student, which stays as it is.
        vae: folder of the VAE that encodes the real images, makes those compared with them, and is exported.
        perceptual: folder of the trained `ImageEncoder` whose feature maps are compared.
        initial_weights: folder of the `MobileControlNet` to start from; None for one that changes nothing.
        class_probability, phrasing_probability: of captions, as in `CaptionBank.draw`.
        thick_probability: chance that edges are strokes of two or three pixels.
        reconstruction_steps: first steps, in which moments are collected and the pictures do not follow them.
        lambda_edges, lambda_colors, lambda_perceptual, lambda_own_colors, lambda_moments: weights of the terms.
        moments_decay: of the running moments, a step of each way.

    The options from `reconstruction_steps` on are those of a one-step student.
    """

    student: str
    vae: str
    perceptual: str
    initial_weights: str | None = None
    class_probability: Fraction = 0.3
    phrasing_probability: Fraction = 0.3
    thick_probability: Fraction = 0.25
    reconstruction_steps: NonNegativeInt = 200
    lambda_edges: NonNegativeFloat = 0.5
    lambda_colors: NonNegativeFloat = 5.0
    lambda_perceptual: NonNegativeFloat = 0.5
    lambda_own_colors: NonNegativeFloat = 0.5
    lambda_moments: NonNegativeFloat = 1.0
    moments_decay: Fraction = 0.99


@dataclass
class ControlBatch:
    """Hold real images with their conditions and captions.

    Attributes:
        images: float32 [B, 3, H, W] in [-1, 1].
        edges: [B, 1, H, W] in [0, 1].
        colors: [B, 3, h, w] in [-1, 1].
        has_edges, has_colors: 1 where the condition is given, float32 [B].
        caption_ids: rows of the `CaptionBank`'s texts, int64 [B].
    """

    images: torch.Tensor
    edges: torch.Tensor
    colors: torch.Tensor
    has_edges: torch.Tensor
    has_colors: torch.Tensor
    caption_ids: torch.Tensor


class ControlledNetwork(nn.Module):
    """Call a UNet with the residuals of a MobileControlNet."""

    def __init__(self, unet: nn.Module, controlnet: nn.Module):
        super().__init__()
        self.unet, self.controlnet = unet, controlnet

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        controlnet_cond: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        class_labels: torch.Tensor,
    ) -> torch.Tensor:
        """Predict v of noisy latents, [B, C, H, W]; arguments as of the two networks."""
        residuals = self.controlnet(sample, timestep, controlnet_cond, class_labels)
        return self.unet(
            sample,
            timestep,
            encoder_hidden_states,
            class_labels,
            residuals.down_block_res_samples,
            residuals.mid_block_res_sample,
        ).sample


def thicken(edges: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    """Widen edges to strokes.

    Args:
        edges: [B, 1, H, W].
        widths: pixels, 1 to 3, int64 [B].

    Returns:
        [B, 1, H, W].
    """
    strokes = edges
    for width in (2, 3):
        widened = F.max_pool2d(F.pad(edges, (1, width - 2, 1, width - 2)), width, stride=1)
        strokes = torch.where((widths == width)[:, None, None, None], widened, strokes)
    return strokes


class Control(Stage[ControlOptions]):
    """Train the control network; the student stays as it is."""

    def setup(self) -> None:
        options = self.options
        self.student = load_pipeline(options.student)
        steps = distilled_steps(self.student.scheduler)
        if steps is None:
            raise ValueError(
                f"{options.student} is not distilled for any number of steps; accepted are those that are"
            )
        self.student.register_modules(vae=load_vae(options.vae))
        encoder = load_component(ImageEncoder, options.perceptual)
        dataset = training_images(options, self.limits)
        self.trainer = Trainer(options, self.limits, len(dataset))
        device, parts = self.trainer.device, FrozenParts.of(self.student)
        for part in (parts.vae, parts.text_encoder):
            part.to(device).requires_grad_(False).eval()  # pyright: ignore[reportArgumentType]
        self.conditioning = Conditioning(parts, CaptionBank(num_phrasings=NUM_PHRASINGS), device)
        self.images, self.edges = dataset.images.to(device), canny_edges(dataset.images).to(device)
        self.labels, self.noun_ids = dataset.labels.to(device), dataset.noun_ids.to(device)
        self.decoder = self.trainer.frozen(NormalisedLatentDecoder(parts.vae))
        self.timesteps = trailing_timesteps(steps[0], device)[:-1]
        if len(self.timesteps) == 1:
            self.encoder = self.trainer.frozen(encoder)
            moments = PictureMoments(self.images, self.encoder, options.moments_decay)
            self.moments = nn.ModuleList(copy.deepcopy(moments) for _ in WAYS)
            self.trainer.keep("moments", self.moments)
        controlnet = (
            MobileControlNet.from_unet(self.student.unet)
            if options.initial_weights is None
            else load_component(MobileControlNet, options.initial_weights)
        )
        self.pipeline = MobileDiffusionControlPipeline.from_pipe(self.student, controlnet=controlnet)
        self.pipeline.set_progress_bar_config(disable=True)
        self.unet = self.trainer.frozen(self.student.unet)
        self.network = ControlledNetwork(self.unet, self.trainer.add("controlnet", controlnet))

    def batch(self, draws: Draws) -> ControlBatch:
        """Draw real images, mirrored with probability one half, with conditions and captions."""
        options, generator, device = self.options, draws.generator, self.trainer.device
        shape = draws.indices.shape
        mirrored, thick = torch.rand(2, *shape, generator=generator, device=device)
        flip = (mirrored < 0.5)[:, None, None, None]
        images, edges = (
            torch.where(flip, values.flip(-1), values)
            for values in (self.images[draws.indices], self.edges[draws.indices] / 255)
        )
        widths = torch.randint(2, 4, shape, generator=generator, device=device)
        round_, way = divmod(draws.index, len(WAYS))
        has_edges, has_colors = (torch.full(shape, float(given), device=device) for given in WAYS[way])
        return ControlBatch(
            images=to_float(images).contiguous(memory_format=torch.channels_last),
            edges=thicken(edges, torch.where(thick < options.thick_probability, widths, 1)),
            colors=color_maps(images, COLOR_MAP_SIZES[round_ % len(COLOR_MAP_SIZES)]),
            has_edges=has_edges,
            has_colors=has_colors,
            caption_ids=self.conditioning.bank.draw(
                self.labels[draws.indices],
                self.noun_ids[draws.indices],
                generator,
                options.class_probability,
                phrasing_probability=options.phrasing_probability,
            ),
        )

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, batch: ControlBatch) -> torch.Tensor:
        """Predict v of noisy latents [B, C, H, W] at timesteps, int64 [B], told conditions and captions."""
        conditions = self.pipeline.controlnet.join_conditions(
            batch.edges, batch.colors, batch.has_edges, batch.has_colors
        )
        with self.trainer.autocast():
            return self.network(noisy, timesteps, conditions, **self.conditioning(batch.caption_ids)).float()

    def draw_noise(self, batch: ControlBatch, generator: torch.Generator) -> torch.Tensor:
        """Draw the noise of the batch's pictures, float32 [B, C, h, w]."""
        config = self.student.unet.config
        shape = len(batch.images), config.in_channels, config.sample_size, config.sample_size
        noise = torch.empty(shape, device=self.trainer.device).normal_(generator=generator)
        return noise.contiguous(memory_format=torch.channels_last)

    def decode(self, noise: torch.Tensor, v: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Decode images of one step from noise and v, [B, C, h, w]: float32 [B, 3, H, W] in [-1, 1]."""
        latents = sample_from_velocity(noise, v, *alpha_sigma(timesteps))
        with self.trainer.autocast():
            return self.decoder(latents).float()

    def generate(self, batch: ControlBatch, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw images of one step, [B, 3, H, W] in [-1, 1], and the colours that they are compared with.

        Where none are given, those are the 4 x 4 colours of the images without control.
        """
        noise = self.draw_noise(batch, generator)
        timesteps = torch.full_like(batch.caption_ids, NUM_TRAIN_TIMESTEPS - 1)
        images = self.decode(noise, self.predict(noise, timesteps, batch), timesteps)
        if batch.has_colors.all():
            return images, batch.colors
        with torch.no_grad(), self.trainer.autocast():
            v = self.unet(noise, timesteps, **self.conditioning(batch.caption_ids)).sample.float()
            own = F.adaptive_avg_pool2d(self.decode(noise, v, timesteps), COLOR_MAP_SIZES[0])
        return images, own

    def step(self, batch: ControlBatch, draws: Draws) -> dict[str, torch.Tensor]:
        return self.step_of_noise(batch, draws) if len(self.timesteps) == 1 else self.step_of_images(batch, draws)

    def step_of_images(self, batch: ControlBatch, draws: Draws) -> dict[str, torch.Tensor]:
        """Denoise real images from the timesteps of the student's steps."""
        chosen = torch.randint(
            len(self.timesteps), batch.caption_ids.shape, generator=draws.generator, device=self.trainer.device
        )
        with torch.no_grad():
            latents = encode_latents(self.student.vae, batch.images)
        z = diffuse(latents.contiguous(memory_format=torch.channels_last), self.timesteps[chosen], draws.generator)
        loss = F.mse_loss(self.predict(z.noisy, self.timesteps[chosen], batch), z.velocity)
        self.trainer.update("controlnet", loss)
        return {"loss_task": loss}

    def step_of_noise(self, batch: ControlBatch, draws: Draws) -> dict[str, torch.Tensor]:
        """Draw from noise in one step, and compare with the real images."""
        options = self.options
        images, colors = self.generate(batch, draws.generator)
        with self.trainer.autocast():
            maps = self.encoder(images).feature_maps
            with torch.no_grad():
                real_maps = self.encoder(batch.images).feature_maps
        terms = {
            "loss_edges": edge_loss(images, batch.images, batch.has_edges),
            "loss_colors": color_loss(images, colors, batch.has_colors),
            "loss_perceptual": (feature_distances(maps, real_maps) * batch.has_colors).mean(),
            "loss_own_colors": color_loss(images, colors, 1 - batch.has_colors),
        }
        lambda_moments = options.lambda_moments if draws.index >= options.reconstruction_steps else 0.0
        weights = {
            "loss_edges": options.lambda_edges,
            "loss_colors": options.lambda_colors,
            "loss_perceptual": options.lambda_perceptual,
            "loss_own_colors": options.lambda_own_colors,
        }
        moments = self.moments[draws.index % len(WAYS)](images, maps)
        terms |= moments
        self.trainer.update("controlnet", weighted_sum(terms, weights | dict.fromkeys(moments, lambda_moments)))
        return terms

    def validate(self) -> dict[str, float]:
        """Draw a grid into tensorboard and the run folder; no figures.

        Its rows are real images, their edges, and results of edges and colours, of edges, of colours, and of none.
        """
        images, edges = self.images[:GRID_IMAGES].cpu(), self.edges[:GRID_IMAGES].cpu()
        sketch: dict[str, Any] = {"image": edges / 255}
        colors: dict[str, Any] = {"color_map": (color_maps(images, COLOR_MAP_SIZES[-1]) + 1) / 2}
        uncontrolled: dict[str, Any] = {**sketch, "controlnet_conditioning_scale": 0.0}
        ways = ({**sketch, **colors}, sketch, colors, uncontrolled)
        seeds, labels = list(range(len(images))), self.labels[:GRID_IMAGES].tolist()
        rows = [images, edges.expand_as(images)]
        with self.trainer.averaged_weights(), torch.no_grad(), self.trainer.autocast():
            rows += [draw(self.pipeline, "the run", seeds, class_labels=labels, **given) for given in ways]
        save_grid(make_grid(torch.cat(rows), nrow=len(images)), self.trainer)
        return {}

    def export(self, folder: Path) -> None:
        """Write the student with its control network."""
        export_pipeline(self.pipeline, folder)


if __name__ == "__main__":
    run_stage(Control, ControlOptions)
