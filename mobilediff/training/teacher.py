"""Stage `teacher`: the full UNet, v-prediction, classifier-free guidance by caption dropout."""

from dataclasses import dataclass

import torch

from mobilediff.training.generator import (
    NUM_TRAIN_TIMESTEPS,
    FrozenParts,
    GeneratorOptions,
    build_network,
    exporter,
    make_pipeline,
    noise_scheduler,
    sampler,
    setup,
)
from mobilediff.training.losses import diffuse, velocity_loss
from mobilediff.training.options import parse_options
from mobilediff.training.trainer import TrainingStep


@dataclass
class TeacherOptions(GeneratorOptions):
    """Options of the stage.

    Attributes:
        network: JSON config of the network.
        weights: folder of a trained network of that config to start from; None for random weights.
        snr_gamma: gamma of min-SNR weighting, None for equal weights.
    """

    network: str = "mobilediff/models/configs/teacher.json"
    weights: str | None = None
    snr_gamma: float | None = None


def train(options: TeacherOptions, limits) -> bool:
    """Train a generator on the data alone; see `Trainer.fit` for the returned value."""
    parts = FrozenParts.load(options.vae, options.text)
    trainer, data = setup(options, limits, parts)
    scheduler = noise_scheduler()
    unet = build_network(options.network, data.latents, options.weights)
    module = trainer.add("unet", unet)
    pipeline = make_pipeline(parts, unet, scheduler, options)

    alphas_cumprod = scheduler.alphas_cumprod.to(trainer.device)

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        batch = data.draw(step)
        timesteps = torch.randint(
            0, NUM_TRAIN_TIMESTEPS, batch.rows.shape, generator=step.generator, device=trainer.device
        )
        z = diffuse(batch.latents, timesteps, alphas_cumprod, step.generator)
        with trainer.autocast():
            prediction = module(z.noisy, timesteps, **data.conditioning(batch.rows)).sample
        loss = velocity_loss(prediction.float(), z.velocity, z.alpha, z.sigma, options.snr_gamma)
        trainer.update("unet", loss)
        return {"loss_task": loss}

    return trainer.fit(step_function, exporter(pipeline), sampler(trainer, pipeline, options.sample_steps))


if __name__ == "__main__":
    train(*parse_options(TeacherOptions))
