"""Distil the full VAE into diffusers' `AutoencoderTiny`, whose decoder is a few convolutions.

As SnapFusion's efficient decoder (arXiv 2306.00980, section 3.2) the new decoder learns the full decoder's images of
latents that students drew. It also learns the training images from their latents and, where that has a weight, to
deceive a discriminator. Its latents are normalised ones; the new encoder learns to make them, so that both halves
belong together.
"""

import copy
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator
from torch import nn
from torchvision.utils import make_grid

from mobilediff.checkpoints import VAE, load_component, load_pipeline
from mobilediff.images import to_bytes, to_float
from mobilediff.models.autoencoder import decode, encode, encode_latents, psnr
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.bases.decoder_stage import DecoderStage, DecoderStageOptions
from mobilediff.training.data.augment import mirror
from mobilediff.training.data.latents import cached_latents, training_images
from mobilediff.training.data.synthetic import synthetic_latents
from mobilediff.training.engine.monitor import Monitor
from mobilediff.training.engine.options import MIN_VALIDATION_SAMPLES, Fraction, check_validation_samples
from mobilediff.training.engine.pipelines import check_full_vae
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws, Trainer

HELD_OUT = 500  # synthetic latents to measure with
SHOWN = 16


class TinyVaeOptions(DecoderStageOptions):
    """Configure the stage `tiny_vae`.

    Attributes:
        network: config of `AutoencoderTiny`.
        students: pipeline folders that draw the synthetic latents, each as many; all with one VAE, the full one.
        num_latents: of each student; the last 500 of all are held out.
        class_probability: fraction of their captions that name the class instead of the noun.
        num_real: training images of a batch, whose latents both encoder and decoder learn; the rest is synthetic.
        lambda_encoder: weight of the encoder's mean squared error.
        validation_samples: samples of the first student, decoded by the small VAE and measured by the `Monitor` every
            `sample_every` steps; 0 for none.
        latent_cache: folder of encoded images, shared by runs.
    """

    network: dict
    students: tuple[str, ...]
    num_latents: int = Field(20000, gt=HELD_OUT)
    class_probability: Fraction = 0.3
    num_real: PositiveInt = 16
    lambda_encoder: NonNegativeFloat = 0.1
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


def load_students(folders: tuple[str, ...]) -> list[MobileDiffusionPipeline]:
    """Load pipelines that have one VAE.

    Raises:
        ValueError: two of them decode differently, or have a small VAE already.
    """
    pipelines = [load_pipeline(folder) for folder in folders]
    for folder, pipeline in zip(folders, pipelines, strict=True):
        check_full_vae(pipeline, folder)
    expected = pipelines[0].vae.state_dict()
    for folder, pipeline in zip(folders, pipelines, strict=True):
        tensors = pipeline.vae.state_dict()
        if tensors.keys() != expected.keys() or any(not torch.equal(tensors[key], expected[key]) for key in expected):
            raise ValueError(f"{folder} has another VAE than {folders[0]}; accepted are pipelines of one VAE")
    return pipelines


@torch.no_grad()
def check_shapes(vae: AutoencoderTiny, full_vae: VAE, images: torch.Tensor) -> None:
    """Refuse a network whose latents or images are of other shapes than the full VAE's.

    Args:
        vae, full_vae: to compare.
        images: uint8 [N, 3, H, W].

    Raises:
        ValueError: naming both shapes.
    """
    image = to_float(images[:1])
    encoded, wanted = encode(vae, image), (encode_latents(full_vae, image), image)
    made, accepted = [(*x.shape[1:], *y.shape[1:]) for x, y in ((encoded, decode(vae, encoded)), wanted)]
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
        pipelines = load_students(options.students)
        encoder = load_component(ImageEncoder, options.perceptual)
        torch.manual_seed(options.seed)  # loading has drawn random numbers, and the trainer that seeds comes later
        self.vae = AutoencoderTiny(**options.network)
        dataset = training_images(options, self.limits)
        check_shapes(self.vae, pipelines[0].vae, dataset.images)
        self.trainer = Trainer(options, self.limits, len(dataset))
        device = self.trainer.device
        for pipeline in pipelines:
            pipeline.to(device).set_progress_bar_config(disable=True)
        with self.trainer.accelerator.main_process_first():
            self.synthetic = synthetic_latents(
                pipelines,
                dataset,
                self.trainer.folder / "synthetic.safetensors",
                num_latents=options.num_latents,
                class_probability=options.class_probability,
                seed=options.seed,
                autocast=self.trainer.autocast,
            )
            self.latents = cached_latents(pipelines[0].vae, dataset, Path(options.latent_cache)).to(device)
        self.images = dataset.images.to(device)
        self.autoencoder = self.trainer.add("vae", TinyAutoencoder(self.vae))
        self.add_loss(encoder, F.mse_loss)
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
        loss, terms = self.compare(decoded, targets, draws)
        terms["loss_encoder"] = F.mse_loss(encoded, latents[:num_real])
        self.trainer.update("vae", loss + self.options.lambda_encoder * terms["loss_encoder"])
        return terms | self.train_discriminator(decoded, real)

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
