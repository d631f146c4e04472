"""Distil the full VAE into diffusers' `AutoencoderTiny`, whose decoder is a few convolutions.

As SnapFusion's efficient decoder (arXiv 2306.00980, section 3.2) the new decoder learns the images that students'
decoders make of latents that they drew. It also learns the training images from their latents and, where that has a
weight, to deceive a discriminator, or to draw pictures with the moments of real ones. All images are brought to the
option `resolution` first: at twice the VAE's own the decoder learns to enlarge. Its latents are normalised ones; the
new encoder learns to make them, so that both halves belong together.
"""

import copy
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator
from torch import nn
from torchvision.utils import make_grid

from mobilediff.checkpoints import load_component, load_pipeline
from mobilediff.export import check_decoded_alike
from mobilediff.images import resize_images, to_bytes, to_float
from mobilediff.models.autoencoder import decode, encode, encode_latents, psnr
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.bases.decoder_stage import DecoderStage, DecoderStageOptions
from mobilediff.training.data.augment import mirror
from mobilediff.training.data.latents import cached_latents, training_images
from mobilediff.training.data.synthetic import synthetic_latents
from mobilediff.training.engine.monitor import Monitor
from mobilediff.training.engine.options import MIN_VALIDATION_SAMPLES, Fraction, check_validation_samples
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws, Trainer
from mobilediff.training.losses.moments import PictureMoments

HELD_OUT = 500  # synthetic latents to measure with
SHOWN = 16
REAL_MOMENTS = 10000  # real images of the moments: at 64 x 64 pixels all 50,000 take minutes


class TinyVaeOptions(DecoderStageOptions):
    """Configure the stage `tiny_vae`.

    Attributes:
        network: config of `AutoencoderTiny`.
        vae: folder of the full VAE, which encodes the training images at its own resolution.
        initial_decoder: folder of an `AutoencoderTiny` from whose decoder the new one starts, as far as the names and
            shapes of their tensors agree; None for random weights.
        students: pipeline folders that draw the synthetic latents, each as many, and decode them.
        num_latents: of each student; the last 500 of all are held out.
        class_probability: fraction of their captions that name the class instead of the noun.
        num_real: training images of a batch, whose latents both encoder and decoder learn; the rest is synthetic.
        lambda_encoder: weight of the encoder's mean squared error.
        lambda_moments: weight of the distance of the synthetic images' moments to those of real images; at 0 they are
            not computed.
        moments_decay: of the running moments.
        moments_start: first step of the decoder with that gradient; moments are collected from step 0.
        validation_samples: samples of the first student, decoded by the small VAE and measured by the `Monitor` every
            `sample_every` steps; 0 for none.
        latent_cache: folder of encoded images, shared by runs.
    """

    network: dict
    vae: str
    initial_decoder: str | None = None
    students: tuple[str, ...]
    num_latents: int = Field(20000, gt=HELD_OUT)
    class_probability: Fraction = 0.3
    num_real: PositiveInt = 16
    lambda_encoder: NonNegativeFloat = 0.1
    lambda_moments: NonNegativeFloat = 0.0
    moments_decay: Fraction = 0.995
    moments_start: NonNegativeInt = 0
    validation_samples: int = 0
    latent_cache: str = "runs/latents"

    _check_validation_samples = field_validator("validation_samples")(check_validation_samples)

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        if self.num_real >= self.batch_size:
            raise ValueError(f"num_real is {self.num_real}; accepted is 1 to below batch_size, {self.batch_size}")
        if not self.students:
            raise ValueError("option students is empty; accepted are pipeline folders")
        return self

    def trial_values(self) -> dict:
        samples = min(self.validation_samples, MIN_VALIDATION_SAMPLES)
        return super().trial_values() | {
            "num_latents": HELD_OUT + 20,
            "num_real": 4,
            "moments_start": 1,
            "validation_samples": samples,
        }


class TinyAutoencoder(nn.Module):
    """Run encoder and decoder in one call that compiles and runs on several devices."""

    def __init__(self, vae: AutoencoderTiny):
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images and decode latents.

        Args:
            images: float [M, 3, H, W] in [-1, 1].
            latents: normalised, [N, C, h, w].

        Returns:
            Latents of the images, [M, C, h, w], and images of the latents, [N, 3, H, W].
        """
        return encode(self.vae, images), decode(self.vae, latents)


def load_students(folders: tuple[str, ...], vae: AutoencoderKL, trial: bool) -> list[MobileDiffusionPipeline]:
    """Load pipelines whose latents are those of a VAE.

    Args:
        folders: of the pipelines.
        vae: decodes their latents alike; see `check_decoded_alike`.
        trial: whether the decoders may be those of trials, which have learnt nothing and are not compared.

    Raises:
        ValueError: a pipeline is of other latents.
    """
    pipelines = [load_pipeline(folder) for folder in folders]
    for folder, pipeline in zip(folders, pipelines, strict=True):
        pipeline.set_progress_bar_config(disable=True)
        if not trial:
            check_decoded_alike(pipeline, vae, folder)
    return pipelines


def start_decoder(vae: AutoencoderTiny, start: AutoencoderTiny) -> None:
    """Copy into a decoder the tensors of another that have the same name and shape.

    Raises:
        ValueError: there are none.
    """
    own = vae.decoder.state_dict()
    shared = {
        name: tensor
        for name, tensor in start.decoder.state_dict().items()
        if name in own and tensor.shape == own[name].shape
    }
    if not shared:
        raise ValueError("initial_decoder shares no tensor with the network; accepted is a decoder of the same widths")
    vae.decoder.load_state_dict(own | shared)


@torch.no_grad()
def check_shapes(vae: AutoencoderTiny, latents: torch.Tensor, images: torch.Tensor) -> None:
    """Refuse a network that makes latents or images of other shapes.

    Args:
        vae: to check.
        latents: of the full VAE, [N, C, h, w].
        images: to learn, uint8 [N, 3, H, W].

    Raises:
        ValueError: naming both shapes.
    """
    encoded = encode(vae, to_float(images[:1]))
    made, accepted = ((*x.shape[1:], *y.shape[1:]) for x, y in ((encoded, decode(vae, encoded)), (latents, images)))
    if made != accepted:
        raise ValueError(f"network: makes latents and images of {made}; accepted is {accepted}")


class TinyVae(DecoderStage[TinyVaeOptions]):
    """Distil encoder and decoder."""

    def setup(self) -> None:
        """See `Stage.setup`.

        Raises:
            ValueError: `network` makes latents or images of another shape than the full VAE.
        """
        options = self.options
        full_vae = load_component(AutoencoderKL, options.vae).float()
        pipelines = load_students(options.students, full_vae, self.limits.trial)
        encoder = load_component(ImageEncoder, options.perceptual)
        torch.manual_seed(options.seed)  # loading has drawn random numbers, and the trainer that seeds comes later
        self.vae = AutoencoderTiny(**options.network)
        if options.initial_decoder is not None:
            start_decoder(self.vae, load_component(AutoencoderTiny, options.initial_decoder))
        dataset = training_images(options, self.limits, full_vae.config["sample_size"])
        images = resize_images(dataset.images, options.resolution)
        with torch.no_grad():
            check_shapes(self.vae, encode_latents(full_vae, to_float(dataset.images[:1])), images)
        self.trainer = Trainer(options, self.limits, len(dataset))
        device = self.trainer.device
        for pipeline in pipelines:
            pipeline.to(device)
        with self.trainer.accelerator.main_process_first():
            self.synthetic = synthetic_latents(
                pipelines,
                dataset,
                self.trainer.folder / "synthetic.safetensors",
                size=options.resolution,
                num_latents=options.num_latents,
                class_probability=options.class_probability,
                seed=options.seed,
                autocast=self.trainer.autocast,
            )
            self.latents = cached_latents(full_vae.to(device), dataset, Path(options.latent_cache)).to(device)
        self.images = images.to(device)
        self.autoencoder = self.trainer.add("vae", TinyAutoencoder(self.vae))
        self.add_loss(encoder, F.mse_loss)
        self.moments = None
        if options.lambda_moments:
            self.moments = PictureMoments(self.images[:REAL_MOMENTS], encoder, options.moments_decay)
            self.trainer.keep("moments", self.moments)
        self.monitor = Monitor(options.validation_samples, device) if options.validation_samples else None
        self.pipeline = copy.copy(pipelines[0])
        self.pipeline.register_modules(vae=self.vae)

    def batch(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw the step's images and their latents, and complete both with synthetic ones.

        Returns:
            Latents [B, C, h, w], the first `num_real` of training images; their images, and B training images, each
            float [B, 3, H, W] in [-1, 1].
        """
        device, num_real = self.trainer.device, self.options.num_real
        mirrored = torch.randint(0, 2, draws.indices.shape, generator=draws.generator, device=device)
        real = mirror(to_float(self.images[draws.indices]), mirrored.bool())
        real_latents = self.latents[mirrored, draws.indices][:num_real].float()
        num_synthetic, num_trained = self.options.batch_size - num_real, len(self.synthetic.latents) - HELD_OUT
        picked = torch.randint(0, num_trained, (num_synthetic,), generator=draws.generator, device=device)
        latents = torch.cat([real_latents, self.synthetic.latents[picked].float()])
        targets = torch.cat([real[:num_real], to_float(self.synthetic.images[picked])])
        tensors = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (latents, targets, real))
        latents, targets, real = tensors
        return latents, targets, real

    def step(self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], draws: Draws) -> dict[str, torch.Tensor]:
        (latents, targets, real), num_real = batch, self.options.num_real
        with self.trainer.autocast():
            encoded, decoded = (output.float() for output in self.autoencoder(real[:num_real], latents))
        loss, terms = self.compare(decoded, targets, draws, **self.moments_of(draws))
        terms["loss_encoder"] = F.mse_loss(encoded, latents[:num_real])
        self.trainer.update("vae", loss + self.options.lambda_encoder * terms["loss_encoder"])
        return terms | self.train_discriminator(decoded, real)

    def moments_of(self, draws: Draws) -> dict:
        """Return the arguments of `compare` about the synthetic pictures' moments, none without those."""
        moments, num_real = self.moments, self.options.num_real
        if moments is None:
            return {}
        lambda_moments = self.options.lambda_moments if draws.index >= self.options.moments_start else 0.0
        return {
            "moments": lambda images, maps: moments(images[num_real:], [features[num_real:] for features in maps]),
            "lambda_moments": lambda_moments,
        }

    def validate(self) -> dict[str, float]:
        held_out, expected = self.synthetic.latents[-HELD_OUT:].float(), self.synthetic.images[-HELD_OUT:]
        with self.trainer.averaged_weights(), torch.no_grad(), self.trainer.autocast():
            decoded = to_bytes(decode(self.vae, held_out))
            figures = self.monitor(self.pipeline) if self.monitor else {}
        shown = torch.cat([expected[:SHOWN], decoded[:SHOWN]])
        self.trainer.log_image("decoded", make_grid(shown, nrow=SHOWN))
        return {"psnr_db": psnr(expected, decoded)} | figures

    def export(self, folder: Path) -> None:
        """Write the small VAE in float16."""
        copy.deepcopy(self.vae).half().save_pretrained(folder)


if __name__ == "__main__":
    run_stage(TinyVae, TinyVaeOptions)
