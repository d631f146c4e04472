"""Load, sample and export the pipelines of a generator's stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

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
from mobilediff.training.engine.stage import Stage
from mobilediff.training.engine.trainer import Draws

GRID_SEEDS = 8

GeneratorOptionsT = TypeVar("GeneratorOptionsT", bound=GeneratorOptions)


@dataclass
class FrozenParts:
    """Hold the trained parts of a pipeline that a generator builds on."""

    vae: VAE
    text_encoder: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer

    @classmethod
    def of(cls, pipeline: MobileDiffusionPipeline) -> "FrozenParts":
        """Take the parts of a loaded pipeline."""
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
    """Load a checkpoint to distil from, which predicts v on the cosine schedule; errors as in `load_pipeline`.

    Raises:
        ValueError: the network predicts something else, which a distilling stage would take for v; or its VAE is a
            small one, whose encoder gives other latents than the network was trained on.
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


class GeneratorStage(Stage[GeneratorOptionsT]):
    """Train the network of a pipeline; `setup` makes `trainer` and `data`, and calls `make_pipeline`.

    Attributes:
        data: the `LatentData` that the batches come from.
        pipeline: the pipeline to sample with and to export, which holds the trained network.
        monitor: measures the run's samples; None where `validation_samples` is 0.
    """

    data: Any
    pipeline: MobileDiffusionPipeline
    monitor: Monitor | None

    def batch(self, draws: Draws) -> Any:
        """Draw the step's latents and captions, a `Batch`."""
        return self.data.draw(draws)

    def make_pipeline(
        self, parts: FrozenParts, unet: ModelMixin, scheduler: SchedulerMixin, guidance_distilled: bool = False
    ) -> None:
        """Make `self.pipeline` and the `Monitor`: last in `setup`, as the judge's loading draws random numbers too."""
        options = self.options
        low, high = options.default_guidance_interval
        self.pipeline = MobileDiffusionPipeline(
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
        self.monitor = None
        if options.validation_samples:
            self.monitor = Monitor(options.validation_samples, self.trainer.device, options.sample_batch_size)

    def validate(self) -> dict[str, float]:
        """Draw a grid of ten classes by eight seeds, into tensorboard and the run folder.

        Returns:
            The `Monitor`'s figures where `validation_samples` asks for them.
        """
        options, trainer, pipeline, figures = self.options, self.trainer, self.pipeline, {}
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
            if self.monitor is not None:
                figures |= self.monitor(pipeline, options.sample_steps)
                for steps in options.validation_steps:
                    measured = self.monitor(pipeline, steps)
                    figures |= {f"{name}_{steps}_steps": value for name, value in measured.items()}
        grid = make_grid(images.float().cpu(), nrow=GRID_SEEDS)
        trainer.log_image("samples", grid)
        folder = trainer.folder / "samples"
        folder.mkdir(exist_ok=True)
        to_pil_image(grid).save(folder / f"{trainer.step:08d}.png")
        return figures

    def export(self, folder: Path) -> None:
        """Write the pipeline."""
        export_pipeline(self.pipeline, folder)
