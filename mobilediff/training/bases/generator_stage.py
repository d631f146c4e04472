"""Train a pipeline's network on latents: the base of the stages that end in a pipeline."""

from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from eval.samples.draw import draw
from mobilediff.captions import CLASS_NAMES, load_nouns
from mobilediff.export import export_pipeline
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.data.latents import Batch, LatentData
from mobilediff.training.engine.monitor import Monitor
from mobilediff.training.engine.options import GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts
from mobilediff.training.engine.stage import Stage
from mobilediff.training.engine.trainer import Draws, Trainer

GRID_SEEDS = 8

GeneratorOptionsT = TypeVar("GeneratorOptionsT", bound=GeneratorOptions)


def save_class_grid(
    pipeline: MobileDiffusionPipeline, trainer: Trainer, num_inference_steps: int | None = None
) -> None:
    """Draw a grid of ten classes by eight seeds, into tensorboard and the run folder."""
    images = draw(
        pipeline,
        "the run",
        list(range(GRID_SEEDS)) * len(CLASS_NAMES),
        class_labels=list(CLASS_NAMES),
        num_images_per_prompt=GRID_SEEDS,
        num_inference_steps=num_inference_steps,
    )
    save_grid(make_grid(images, nrow=GRID_SEEDS), trainer)


def save_grid(grid: torch.Tensor, trainer: Trainer) -> None:
    """Write a grid of images, uint8 [3, H, W], into tensorboard and the run folder."""
    trainer.log_image("samples", grid)
    folder = trainer.folder / "samples"
    folder.mkdir(exist_ok=True)
    to_pil_image(grid).save(folder / f"{trainer.step:08d}.png")


class GeneratorStage(Stage[GeneratorOptionsT]):
    """Train the network of a pipeline; `setup` makes `trainer` and `data`, and calls `make_pipeline`.

    Attributes:
        pipeline_class: of the pipeline.
        data: of the batches.
        pipeline: the pipeline to sample with and to export, which holds the trained network.
        monitor: measures the run's samples; None where `validation_samples` is 0.
    """

    pipeline_class: type[MobileDiffusionPipeline] = MobileDiffusionPipeline
    data: LatentData
    pipeline: MobileDiffusionPipeline
    monitor: Monitor | None

    def batch(self, draws: Draws) -> Batch:
        """Draw the step's latents and captions."""
        return self.data.draw(draws)

    def make_pipeline(
        self, parts: FrozenParts, unet: ModelMixin, scheduler: SchedulerMixin, guidance_distilled: bool = False
    ) -> None:
        """Make `self.pipeline` and the `Monitor`: last in `setup`, as the judge's loading draws random numbers too."""
        options = self.options
        low, high = options.default_guidance_interval
        self.pipeline = self.pipeline_class(
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
        with trainer.averaged_weights(), torch.no_grad(), trainer.autocast():
            save_class_grid(pipeline, trainer, options.sample_steps)
            if self.monitor is not None:
                figures |= self.monitor(pipeline, options.sample_steps)
                for steps in options.validation_steps:
                    measured = self.monitor(pipeline, steps)
                    figures |= {f"{name}_{steps}_steps": value for name, value in measured.items()}
        return figures

    def export(self, folder: Path) -> None:
        """Write the pipeline."""
        export_pipeline(self.pipeline, folder)
