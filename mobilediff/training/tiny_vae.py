"""Stage `tiny_vae`: the full VAE distilled into diffusers' `AutoencoderTiny`, whose decoder is a few convolutions.

As SnapFusion's efficient decoder (arXiv 2306.00980, section 3.2) it learns what the full one makes of latents that
students drew; beside that it learns the training images from their latents, and, where that has a weight, to be taken
for real images by a discriminator. Its latents are normalised ones, and its own encoder learns them too, so that both
halves belong together.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import nn
from torchvision.utils import make_grid

from mobilediff.captions import CaptionBank
from mobilediff.checkpoints import load_component, load_pipeline
from mobilediff.data import ImageDataset, load_cifar10
from mobilediff.images import to_bytes, to_float
from mobilediff.models.autoencoder import psnr
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.data.augment import mirror
from mobilediff.training.data.captioned import cached_tensors, captioned_batches
from mobilediff.training.data.latents import cached_latents
from mobilediff.training.engine.monitor import Monitor
from mobilediff.training.engine.options import MIN_VALIDATION_SAMPLES, RunLimits, check_validation_samples, run_stage
from mobilediff.training.engine.pipelines import check_full_vae
from mobilediff.training.engine.trainer import Trainer, TrainingStep, derived_seed
from mobilediff.training.losses.decoder import (
    DecoderLoss,
    DecoderLossOptions,
    PatchDiscriminator,
    patch_discriminator_loss,
)
from mobilediff.training.losses.perceptual import PerceptualLoss

BATCH_SIZE = 250
HELD_OUT = 500  # synthetic latents that figures are of
SHOWN = 16


@dataclass
class TinyVaeOptions(DecoderLossOptions):
    """Options of the stage.

    Attributes:
        network: config of `AutoencoderTiny`.
        students: pipeline folders that draw the synthetic latents, each as many; all with one VAE, the full one.
        num_latents: of each student; the last 500 of all are held out.
        class_probability: fraction of their captions that name the class instead of the noun.
        num_real: training images of a batch, whose latents both halves learn; the rest is synthetic.
        lambda_encoder: weight of the encoder's mean squared error.
        validation_samples: samples of the first student, decoded by the small VAE and measured by the `Monitor` every
            `sample_every` steps; 0 for none.
        latent_cache: folder of encoded images, shared by runs.
    """

    network: dict = field(default_factory=dict)
    students: tuple[str, ...] = ()
    num_latents: int = 20000
    class_probability: float = 0.3
    num_real: int = 16
    lambda_encoder: float = 0.1
    validation_samples: int = 0
    latent_cache: str = "runs/latents"

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.num_real < self.batch_size:
            raise ValueError(f"num_real is {self.num_real}; accepted is 1 to below batch_size, {self.batch_size}")
        check_validation_samples(self.validation_samples)
        if self.num_latents <= HELD_OUT:
            raise ValueError(f"num_latents is {self.num_latents}; accepted are more than {HELD_OUT}")
        if not self.students:
            raise ValueError("option students is empty; accepted are pipeline folders")


class TinyAutoencoder(nn.Module):
    """Encoder and decoder in one call that compiles and runs on several devices."""

    def __init__(self, vae: AutoencoderTiny):
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of images in [-1, 1], and images of other latents."""
        return self.vae.encode(images).latents, self.vae.decode(latents).sample


@dataclass
class Decoded:
    """Normalised latents, float16 [N, C, h, w], and what the full decoder makes of them, uint8 [N, 3, H, W]."""

    latents: torch.Tensor
    images: torch.Tensor


@torch.no_grad()
def decode_all(pipeline: MobileDiffusionPipeline, latents: torch.Tensor, trainer: Trainer) -> torch.Tensor:
    """The full decoder's images of normalised latents, uint8."""
    images = []
    for batch in latents.split(BATCH_SIZE):
        with trainer.autocast():
            decoded = pipeline.decode_latents(batch.to(trainer.device).float())
        images.append(to_bytes(decoded))
    return torch.cat(images).contiguous()


@torch.no_grad()
def synthetic_latents(pipelines: list[MobileDiffusionPipeline], dataset: ImageDataset, trainer: Trainer) -> Decoded:
    """Latents that the students draw for captions as the data set's, decoded; kept in the run folder."""
    options, bank = trainer.options, CaptionBank()

    def draw() -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(derived_seed(options.seed, "synthetic"))
        latents = []
        for pipeline in pipelines:
            pipeline.to(trainer.device).set_progress_bar_config(disable=True)
            sizes = [len(part) for part in torch.arange(options.num_latents).split(BATCH_SIZE)]
            for _, caption_ids in captioned_batches(
                bank, dataset.labels, dataset.noun_ids, sizes, generator, options.class_probability
            ):
                with trainer.autocast():
                    prompts = [bank.texts[caption_id] for caption_id in caption_ids.tolist()]
                    drawn = pipeline(prompt=prompts, generator=generator, output_type="latent").images
                latents.append(drawn.half().cpu())
        # students in turn, so that those held out are of all
        latents = torch.cat(latents).unflatten(0, (len(pipelines), -1)).transpose(0, 1).flatten(0, 1)
        return {"latents": latents, "images": decode_all(pipelines[0], latents, trainer).cpu()}

    tensors = cached_tensors(Path(options.output) / "synthetic.safetensors", draw)
    return Decoded(**{name: tensor.to(trainer.device) for name, tensor in tensors.items()})


def load_students(folders: tuple[str, ...]) -> list[MobileDiffusionPipeline]:
    """The pipelines, whose VAE is one and the same.

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


def train(options: TinyVaeOptions, limits: RunLimits) -> bool:
    """Distil both halves; see `Trainer.fit` for the returned value.

    Raises:
        ValueError: `network` makes latents or images of another shape than the full VAE.
    """
    pipelines = load_students(options.students)
    encoder, vae = load_component(ImageEncoder, options.perceptual), AutoencoderTiny(**options.network)
    dataset = load_cifar10(options.data, "train", options.resolution)
    if limits.trial:
        dataset, options.num_latents, options.num_real = dataset.head(256), HELD_OUT + 20, 4
        options.adversarial_start = 1
        options.validation_samples = min(options.validation_samples, MIN_VALIDATION_SAMPLES)
    trainer = Trainer(options, limits, len(dataset))
    with trainer.accelerator.main_process_first():
        synthetic = synthetic_latents(pipelines, dataset, trainer)
        latents = cached_latents(pipelines[0].vae, dataset, Path(options.latent_cache)).to(trainer.device)
    check_shapes(vae, latents[0], dataset.images)
    module = trainer.add("vae", TinyAutoencoder(vae))
    discriminator = PatchDiscriminator() if options.lambda_adversarial else None
    if discriminator is not None:
        trained_discriminator = trainer.add(
            "discriminator", discriminator, learning_rate=options.discriminator_learning_rate, ema_decay=0.0
        )
    decoder_loss = DecoderLoss(
        PerceptualLoss(encoder).to(trainer.device, memory_format=torch.channels_last),
        F.mse_loss,
        lambda_perceptual=options.lambda_perceptual,
        discriminator=discriminator,
        lambda_adversarial=options.lambda_adversarial,
        autocast=trainer.autocast,
    )
    images = dataset.images.to(trainer.device)

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        mirrored = torch.randint(0, 2, step.indices.shape, generator=step.generator, device=trainer.device)
        real = mirror(to_float(images[step.indices]), mirrored.bool()).contiguous(memory_format=torch.channels_last)
        learnt, rest = options.num_real, options.batch_size - options.num_real
        real_latents = latents[mirrored, step.indices][:learnt].float()
        picked = torch.randint(
            0, len(synthetic.latents) - HELD_OUT, (rest,), generator=step.generator, device=trainer.device
        )
        inputs = torch.cat([real_latents, synthetic.latents[picked].float()])
        targets = torch.cat([real[:learnt], to_float(synthetic.images[picked])])
        inputs, targets = (x.contiguous(memory_format=torch.channels_last) for x in (inputs, targets))
        with trainer.autocast():
            encoded, decoded = (output.float() for output in module(real[:learnt], inputs))
        loss, terms = decoder_loss(decoded, targets, step.index >= options.adversarial_start)
        terms["loss_encoder"] = F.mse_loss(encoded, real_latents)
        trainer.update("vae", loss + options.lambda_encoder * terms["loss_encoder"])
        if discriminator is not None:
            loss, figures = patch_discriminator_loss(trained_discriminator, real, decoded, trainer.autocast)
            trainer.update("discriminator", loss)
            terms |= figures
        return terms

    monitor = Monitor(options.validation_samples, trainer.device) if options.validation_samples else None
    monitored = copy.copy(pipelines[0]).to(trainer.device)
    monitored.register_modules(vae=vae)
    monitored.set_progress_bar_config(disable=True)

    def on_sample(writer) -> dict[str, float]:
        held_out = synthetic.latents[-HELD_OUT:].float()
        with trainer.averaged_weights(), torch.no_grad(), trainer.autocast():
            decoded = to_bytes(vae.decode(held_out).sample)
            figures = monitor(monitored) if monitor else {}
        expected = synthetic.images[-HELD_OUT:]
        shown = torch.cat([expected[:SHOWN], decoded[:SHOWN]])
        writer.add_image("decoded", make_grid(shown, nrow=SHOWN), trainer.step)
        return {"psnr_db": psnr(expected, decoded)} | figures

    def on_export(folder: Path) -> None:
        copy.deepcopy(vae).half().save_pretrained(folder)

    return trainer.fit(step_function, on_export, on_sample)


def check_shapes(vae: AutoencoderTiny, latents: torch.Tensor, images: torch.Tensor) -> None:
    """Refuse a network of other shapes than latents [N, C, h, w] and images [N, 3, H, W].

    Raises:
        ValueError: naming both shapes.
    """
    with torch.no_grad():
        encoded = vae.encode(to_float(images[:1])).latents
        decoded = vae.decode(encoded).sample
    made, wanted = [(*x.shape[1:], *y.shape[1:]) for x, y in ((encoded, decoded), (latents, images))]
    if made != wanted:
        raise ValueError(f"network: makes latents and images of {made}; accepted is {wanted}")


if __name__ == "__main__":
    run_stage(train, TinyVaeOptions)
