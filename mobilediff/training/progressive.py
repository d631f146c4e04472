"""Distil sampling into fewer steps (arXiv 2202.00512), guidance folded in or CFG-aware."""

from collections.abc import Callable
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt, field_validator, model_validator

from mobilediff.diffusion import (
    Diffused,
    alpha_sigma,
    ddim_step,
    diffuse,
    progressive_target,
    sample_from_velocity,
    trailing_timesteps,
)
from mobilediff.sampling.scheduling import checked_interval
from mobilediff.schedulers.distilled_ddim import DistilledDDIMScheduler
from mobilediff.training.bases.generator_stage import GeneratorStage
from mobilediff.training.data.latents import Batch, prepare
from mobilediff.training.engine.options import Fraction, GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts, load_velocity_pipeline
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws
from mobilediff.training.losses.distillation import truncated_snr_loss


class ProgressiveOptions(GeneratorOptions):
    """Configure the stage `progressive`; VAE and text encoder are the student's.

    Attributes:
        student: pipeline folder of the network that is distilled and that the new one starts from.
        teacher: pipeline folder of the network that gives the targets; None for `student` itself.
        num_steps: steps of the distilled student.
        target_steps: of the targets, a step of the student. 2 halves the steps; with 1 their number stays and guidance
            alone is distilled (arXiv 2210.03142, stage one).
        guidance_scale: guidance of the targets, which the student learns to give in one call (arXiv 2210.03142).
        guidance_interval: ends of the interval where guidance applies (arXiv 2404.07724), as fractions of the
            timesteps.
        cfg_aware_probability: fraction of the steps that guide both teacher and student; the others guide neither
            (SnapFusion, arXiv 2306.00980, its CFG-aware loss). Such a student samples with guidance. At 0
            `guidance_scale` is folded in instead.
        cfg_aware_range: of the guidance scales of those steps, drawn evenly.
        lambda_distill: weight of the truncated-SNR loss.
        lambda_task: weight of the loss against the data, which is first scaled to the size of the other.
    """

    student: str
    teacher: str | None = None
    default_num_inference_steps: PositiveInt = 8
    default_guidance_scale: float = 1.0
    num_steps: PositiveInt = 8
    target_steps: PositiveInt = 2
    guidance_scale: float = 3.0
    guidance_interval: tuple[float, float] = (0.15, 0.8)
    cfg_aware_probability: Fraction = 0.0
    cfg_aware_range: tuple[float, float] = (1.5, 4.0)
    lambda_distill: NonNegativeFloat = 1.0
    lambda_task: NonNegativeFloat = 0.0

    _check_guidance_interval = field_validator("guidance_interval")(checked_interval)

    def trial_values(self) -> dict:
        # a distilled student takes all its steps, so the grid alone is drawn
        return super().trial_values() | {"sample_steps": None, "validation_samples": 0}

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        if self.default_num_inference_steps != self.num_steps:
            raise ValueError(
                f"default_num_inference_steps is {self.default_num_inference_steps}; accepted is num_steps, "
                f"{self.num_steps}"
            )
        low, high = self.cfg_aware_range
        if not 1 <= low <= high:
            raise ValueError(f"cfg_aware_range is {[low, high]}; accepted are two scales, 1 <= low <= high")
        return self


def distillation_target(
    velocity_at: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    z: Diffused,
    timesteps: list[torch.Tensor],
) -> torch.Tensor:
    """Compute the x with which one step ends where the teacher's DDIM steps end.

    Source: arXiv 2202.00512, algorithm 2.

    Args:
        velocity_at: the teacher's v, of noisy latents [B, C, H, W] at timesteps [B].
        z: where the steps start.
        timesteps: of the steps, in turn, and where the last one ends; each [B].

    Returns:
        [B, C, H, W], without a gradient.
    """
    noisy, here = z.noisy, (z.alpha, z.sigma)
    with torch.no_grad():
        for t, next_t in pairwise(timesteps):
            there = alpha_sigma(next_t)
            noisy, here = ddim_step(noisy, velocity_at(noisy, t), *here, *there), there
        return progressive_target(z.noisy, noisy, z.alpha, z.sigma, *here)


class Progressive(GeneratorStage[ProgressiveOptions]):
    """Distil sampling into `num_steps` steps."""

    def setup(self) -> None:
        options = self.options
        source = load_velocity_pipeline(options.student)
        teacher = load_velocity_pipeline(options.teacher or options.student).unet
        parts = FrozenParts.of(source)
        self.trainer, self.data = prepare(options, self.limits, parts)
        self.teacher = self.data.conditioned(self.trainer.frozen(teacher))
        self.student = self.data.conditioned(self.trainer.add("unet", source.unet))
        self.timesteps = trailing_timesteps(options.target_steps * options.num_steps, self.trainer.device)
        self.cfg_aware = options.cfg_aware_probability > 0
        scheduler = DistilledDDIMScheduler(distilled_num_inference_steps=[options.num_steps])
        self.make_pipeline(parts, source.unet, scheduler, guidance_distilled=not self.cfg_aware)

    def step(self, batch: Batch, draws: Draws) -> dict[str, torch.Tensor]:
        options, caption_ids = self.options, batch.caption_ids
        start = options.target_steps * torch.randint(
            0, options.num_steps, caption_ids.shape, generator=draws.generator, device=self.trainer.device
        )
        timesteps = [self.timesteps[start + place] for place in range(options.target_steps + 1)]
        z = diffuse(batch.latents, timesteps[0], draws.generator)
        scale = self.draw_scale(draws) if self.cfg_aware else options.guidance_scale
        target = distillation_target(
            lambda noisy, t: self.teacher.guided(noisy, t, caption_ids, scale, options.guidance_interval), z, timesteps
        )
        prediction, plain = self.student.guided_and_plain(
            z.noisy, timesteps[0], caption_ids, scale if self.cfg_aware else 1.0, options.guidance_interval
        )
        predicted_sample = sample_from_velocity(z.noisy, prediction, z.alpha, z.sigma)
        loss_distill = truncated_snr_loss(predicted_sample, target, z.alpha, z.sigma)
        loss_task = F.mse_loss(plain, z.velocity)
        same_size = (loss_distill / loss_task).detach()
        self.trainer.update(
            "unet", options.lambda_distill * loss_distill + options.lambda_task * same_size * loss_task
        )
        return {"loss_distill": loss_distill, "loss_task": loss_task}

    def draw_scale(self, draws: Draws) -> float:
        """Draw the guidance scale of a CFG-aware step: 1 in those that guide neither network."""
        aware, place = torch.rand(2, generator=draws.generator, device=self.trainer.device).tolist()
        low, high = self.options.cfg_aware_range
        return low + (high - low) * place if aware < self.options.cfg_aware_probability else 1.0


if __name__ == "__main__":
    run_stage(Progressive, ProgressiveOptions)
