"""Pipelines that a generator's stage starts from, samples with and exports."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.captions import CLASS_NAMES, load_nouns
from mobilediff.checkpoints import VAE, load_component, load_pipeline, load_vae
from mobilediff.diffusion import FORWARD_PROCESS
from mobilediff.export import export_pipeline
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.engine.monitor import Monitor
from mobilediff.training.engine.options import GeneratorOptions
from mobilediff.training.engine.trainer import Trainer

GRID_SEEDS = 8


@dataclass
class FrozenParts:
    """The trained parts that a generator builds on."""

    vae: VAE
    text_encoder: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer

    @classmethod
    def of(cls, pipeline: MobileDiffusionPipeline) -> "FrozenParts":
        return cls(pipeline.vae, pipeline.text_encoder, pipeline.tokenizer)

    @classmethod
    def load(cls, vae: str, text: str) -> "FrozenParts":
        """Read the exports of the stages `vae` and `clip`; errors as in `load_component`."""
        return cls(
            load_vae(vae),
            load_component(CLIPTextModelWithProjection, Path(text, "text_encoder")),
            CLIPTokenizer.from_pretrained(Path(text, "tokenizer")),
        )


def load_velocity_pipeline(folder: str) -> MobileDiffusionPipeline:
    """A checkpoint to distil from, whose network predicts v on the cosine schedule; errors as in `load_pipeline`.

    Raises:
        ValueError: the network predicts something else, which the stages that distil from it would take for v, or its
            VAE is a small one, whose encoder would give them other latents than the network was trained on.
    """
    pipeline = load_pipeline(folder)
    for name, accepted in FORWARD_PROCESS.items():
        value = pipeline.scheduler.config[name]
        if value != accepted:
            raise ValueError(f"{folder}: the network's {name} is {value}; accepted is {accepted}")
    check_full_vae(pipeline, folder)
    return pipeline


def check_full_vae(pipeline: MobileDiffusionPipeline, folder: str) -> None:
    """Refuse a checkpoint that `export --vae` has given a small VAE.

    Raises:
        ValueError: naming the folder.
    """
    if not isinstance(pipeline.vae, AutoencoderKL):
        raise ValueError(
            f"{folder}: its VAE is {type(pipeline.vae).__name__}; accepted is AutoencoderKL, which "
            "`python -m mobilediff.export --vae` puts back"
        )


def make_pipeline(
    parts: FrozenParts,
    unet: ModelMixin,
    scheduler: SchedulerMixin,
    options: GeneratorOptions,
    guidance_distilled: bool = False,
) -> MobileDiffusionPipeline:
    """The pipeline that a stage exports and samples with."""
    low, high = options.default_guidance_interval
    return MobileDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=unet,
        scheduler=scheduler,
        nouns=load_nouns(),
        default_num_inference_steps=options.default_num_inference_steps,
        default_guidance_scale=options.default_guidance_scale,
        default_guidance_low=low,
        default_guidance_high=high,
        guidance_distilled=guidance_distilled,
    )


def exporter(pipeline: MobileDiffusionPipeline):
    """An `on_export` for `Trainer.fit`."""
    return lambda folder: export_pipeline(pipeline, folder)


def sampler(trainer: Trainer, pipeline: MobileDiffusionPipeline):
    """An `on_sample` for `Trainer.fit`: a grid of the ten classes by eight seeds, into tensorboard and the run folder,
    and the figures of `Monitor` where the options ask for them."""
    options = trainer.options
    monitor = None
    if options.validation_samples:
        monitor = Monitor(options.validation_samples, trainer.device, options.sample_batch_size)

    def on_sample(writer) -> dict[str, float]:
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(seed) for _ in CLASS_NAMES for seed in range(GRID_SEEDS)]
        with trainer.averaged_weights(), torch.no_grad(), trainer.autocast():
            images = pipeline(
                class_labels=list(CLASS_NAMES),
                num_images_per_prompt=GRID_SEEDS,
                num_inference_steps=options.sample_steps,
                generator=generators,
                output_type="pt",
            ).images
            figures = monitor(pipeline, options.sample_steps) if monitor else {}
            for steps in options.validation_steps if monitor else ():
                figures |= {f"{name}_{steps}_steps": value for name, value in monitor(pipeline, steps).items()}
        grid = make_grid(images.float().cpu(), nrow=GRID_SEEDS)
        writer.add_image("samples", grid, trainer.step)
        folder = trainer.folder / "samples"
        folder.mkdir(exist_ok=True)
        to_pil_image(grid).save(folder / f"{trainer.step:08d}.png")
        return figures

    return on_sample
