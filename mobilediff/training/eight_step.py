"""Stage `eight_step`: progressive distillation (arXiv 2202.00512), guidance folded into the student."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mobilediff.schedulers.distilled_ddim import DistilledDDIMScheduler
from mobilediff.training.generator import (
    NUM_TRAIN_TIMESTEPS,
    FrozenParts,
    GeneratorOptions,
    exporter,
    load_velocity_pipeline,
    make_pipeline,
    noise_scheduler,
    sampler,
    setup,
    trailing_timesteps,
)
from mobilediff.training.losses import (
    alpha_sigma,
    ddim_step,
    diffuse,
    guidance_scales,
    guided,
    sample_from_velocity,
    truncated_snr_loss,
    two_step_target,
)
from mobilediff.training.options import RunLimits, run_stage
from mobilediff.training.trainer import TrainingStep


@dataclass
class EightStepOptions(GeneratorOptions):
    """Options of the stage; VAE and text encoder are the student's.

    Attributes:
        student: pipeline folder of the network that is distilled and that the new one starts from.
        teacher: pipeline folder of the network that gives the targets; None for `student` itself.
        num_steps: steps of the distilled student; the targets take twice as many.
        guidance_scale: guidance of the targets, which the student learns to give in one call (arXiv 2210.03142).
        guidance_interval: from where to where it applies (arXiv 2404.07724), as shares of the timesteps.
        lambda_distill: weight of the truncated-SNR loss.
        lambda_task: weight of the loss against the data.
    """

    POSITIVE = (*GeneratorOptions.POSITIVE, "num_steps")

    student: str = ""
    teacher: str | None = None
    num_steps: int = 8
    guidance_scale: float = 3.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    lambda_distill: float = 1.0
    lambda_task: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        low, high = self.guidance_interval
        if not 0 <= low < high <= 1:
            raise ValueError(f"guidance_interval is {[low, high]}; accepted are two shares, 0 <= low < high <= 1")


def train(options: EightStepOptions, limits: RunLimits) -> bool:
    """Distil sampling into `num_steps` steps; see `Trainer.fit` for the returned value."""
    source = load_velocity_pipeline(options.student)
    parts = FrozenParts.of(source)
    trainer, data = setup(options, limits, parts)
    teacher = trainer.frozen(load_velocity_pipeline(options.teacher or options.student).unet)
    module = trainer.add("unet", source.unet)
    scheduler = DistilledDDIMScheduler(distilled_num_inference_steps=[options.num_steps])
    pipeline = make_pipeline(parts, source.unet, scheduler, options, guidance_distilled=True)
    alphas_cumprod = noise_scheduler().alphas_cumprod.to(trainer.device)
    grid = trailing_timesteps(2 * options.num_steps, trainer.device)

    @torch.no_grad()
    def guided_velocity(noisy: torch.Tensor, timesteps: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        both = data.conditioning(torch.cat([rows, data.conditioning.null_like(rows)]))
        with trainer.autocast():
            prediction = teacher(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), **both).sample
        shares = timesteps / NUM_TRAIN_TIMESTEPS
        scales = guidance_scales(shares, options.guidance_scale, options.guidance_interval)
        return guided(*prediction.float().chunk(2), scales)

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        batch = data.draw(step)
        start = 2 * torch.randint(
            0, options.num_steps, batch.rows.shape, generator=step.generator, device=trainer.device
        )
        times = [grid[start], grid[start + 1], grid[start + 2]]
        z = diffuse(batch.latents, times[0], alphas_cumprod, step.generator)
        middle, end = (alpha_sigma(alphas_cumprod, t) for t in times[1:])
        after_one = ddim_step(z.noisy, guided_velocity(z.noisy, times[0], batch.rows), z.alpha, z.sigma, *middle)
        after_two = ddim_step(after_one, guided_velocity(after_one, times[1], batch.rows), *middle, *end)
        target = two_step_target(z.noisy, after_two, z.alpha, z.sigma, *end)
        with trainer.autocast():
            prediction = module(z.noisy, times[0], **data.conditioning(batch.rows)).sample
        prediction = prediction.float()
        predicted_sample = sample_from_velocity(z.noisy, prediction, z.alpha, z.sigma)
        loss_distill = truncated_snr_loss(predicted_sample, target, z.alpha, z.sigma)
        loss_task = F.mse_loss(prediction, z.velocity)
        trainer.update("unet", options.lambda_distill * loss_distill + options.lambda_task * loss_task)
        return {"loss_distill": loss_distill, "loss_task": loss_task}

    return trainer.fit(step_function, exporter(pipeline), sampler(trainer, pipeline, options.sample_steps))


if __name__ == "__main__":
    run_stage(train, EightStepOptions)
