"""Stage `progressive`: progressive distillation (arXiv 2202.00512), guidance folded in or CFG-aware."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from mobilediff.diffusion import (
    NUM_TRAIN_TIMESTEPS,
    Diffused,
    alpha_sigma,
    ddim_step,
    diffuse,
    guidance_scales,
    guided,
    progressive_target,
    sample_from_velocity,
    trailing_timesteps,
)
from mobilediff.pipeline import checked_interval
from mobilediff.schedulers.distilled_ddim import DistilledDDIMScheduler
from mobilediff.training.data.conditioning import ConditionedNetwork
from mobilediff.training.data.latents import setup
from mobilediff.training.engine.options import GeneratorOptions, RunLimits, run_stage
from mobilediff.training.engine.pipelines import FrozenParts, exporter, load_velocity_pipeline, make_pipeline, sampler
from mobilediff.training.engine.trainer import TrainingStep
from mobilediff.training.losses.distillation import truncated_snr_loss


@dataclass
class ProgressiveOptions(GeneratorOptions):
    """Options of the stage; VAE and text encoder are the student's.

    Attributes:
        student: pipeline folder of the network that is distilled and that the new one starts from.
        teacher: pipeline folder of the network that gives the targets; None for `student` itself.
        num_steps: steps of the distilled student.
        target_steps: of the targets, a step of the student. 2 halves the steps; with 1 their number stays and guidance
            alone is distilled (arXiv 2210.03142, stage one).
        guidance_scale: guidance of the targets, which the student learns to give in one call (arXiv 2210.03142).
        guidance_interval: from where to where guidance applies (arXiv 2404.07724), as fractions of the timesteps.
        cfg_aware_probability: fraction of the steps that have both teacher and student guided, the others neither
            (SnapFusion, arXiv 2306.00980, its CFG-aware loss): the student is one to be guided when it samples. At 0
            `guidance_scale` is folded in instead.
        cfg_aware_range: of the guidance scales of those steps, drawn evenly.
        lambda_distill: weight of the truncated-SNR loss.
        lambda_task: weight of the loss against the data, which is brought to the size of the other first.
    """

    POSITIVE = (*GeneratorOptions.POSITIVE, "num_steps", "target_steps")

    student: str = ""
    teacher: str | None = None
    default_num_inference_steps: int = 8
    num_steps: int = 8
    target_steps: int = 2
    guidance_scale: float = 3.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    cfg_aware_probability: float = 0.0
    cfg_aware_range: tuple[float, float] = (2.0, 14.0)
    lambda_distill: float = 1.0
    lambda_task: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        checked_interval(self.guidance_interval)
        if not 0 <= self.cfg_aware_probability <= 1:
            raise ValueError(
                f"cfg_aware_probability is {self.cfg_aware_probability}; accepted are fractions from 0 to 1"
            )
        if self.default_num_inference_steps != self.num_steps:
            raise ValueError(
                f"default_num_inference_steps is {self.default_num_inference_steps}; accepted is num_steps, "
                f"{self.num_steps}"
            )
        low, high = self.cfg_aware_range
        if not 1 <= low <= high:
            raise ValueError(f"cfg_aware_range is {[low, high]}; accepted are two scales, 1 <= low <= high")


def distillation_target(
    velocity_at: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    z: Diffused,
    timesteps: list[torch.Tensor],
) -> torch.Tensor:
    """The x that one step must predict to reach where the teacher's DDIM steps do (arXiv 2202.00512, algorithm 2).

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


def train(options: ProgressiveOptions, limits: RunLimits) -> bool:
    """Distil sampling into `num_steps` steps; see `Trainer.fit` for the returned value."""
    source = load_velocity_pipeline(options.student)
    parts = FrozenParts.of(source)
    trainer, data = setup(options, limits, parts)
    teacher = trainer.frozen(load_velocity_pipeline(options.teacher or options.student).unet)
    teacher = ConditionedNetwork(teacher, data.conditioning, trainer.autocast)
    student = ConditionedNetwork(trainer.add("unet", source.unet), data.conditioning, trainer.autocast)
    cfg_aware = options.cfg_aware_probability > 0
    scheduler = DistilledDDIMScheduler(distilled_num_inference_steps=[options.num_steps])
    pipeline = make_pipeline(parts, source.unet, scheduler, options, guidance_distilled=not cfg_aware)
    timesteps = trailing_timesteps(options.target_steps * options.num_steps, trainer.device)

    def draw_scale(step: TrainingStep) -> float:
        aware, place = torch.rand(2, generator=step.generator, device=trainer.device).tolist()
        low, high = options.cfg_aware_range
        return low + (high - low) * place if aware < options.cfg_aware_probability else 1.0

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        batch = data.draw(step)
        start = options.target_steps * torch.randint(
            0, options.num_steps, batch.caption_ids.shape, generator=step.generator, device=trainer.device
        )
        z = diffuse(batch.latents, timesteps[start], step.generator)
        scale = draw_scale(step) if cfg_aware else options.guidance_scale
        target = distillation_target(
            lambda noisy, t: teacher.guided(noisy, t, batch.caption_ids, scale, options.guidance_interval),
            z,
            [timesteps[start + place] for place in range(options.target_steps + 1)],
        )
        if cfg_aware and scale != 1:
            plain, null = student.with_null(z.noisy, timesteps[start], batch.caption_ids)
            scales = guidance_scales(timesteps[start] / NUM_TRAIN_TIMESTEPS, scale, options.guidance_interval)
            prediction = guided(plain, null, scales)
        else:
            prediction = plain = student(z.noisy, timesteps[start], batch.caption_ids)
        predicted_sample = sample_from_velocity(z.noisy, prediction, z.alpha, z.sigma)
        loss_distill = truncated_snr_loss(predicted_sample, target, z.alpha, z.sigma)
        loss_task = F.mse_loss(plain, z.velocity)
        same_size = (loss_distill / loss_task).detach()
        trainer.update("unet", options.lambda_distill * loss_distill + options.lambda_task * same_size * loss_task)
        return {"loss_distill": loss_distill, "loss_task": loss_task}

    return trainer.fit(step_function, exporter(pipeline), sampler(trainer, pipeline))


if __name__ == "__main__":
    run_stage(train, ProgressiveOptions)
