"""Stage `teacher`: the full UNet on the data alone, with caption dropout for classifier-free guidance."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mobilediff.diffusion import NUM_TRAIN_TIMESTEPS, diffuse, diffuse_straight, flow_scheduler, noise_scheduler
from mobilediff.models.build import build_network
from mobilediff.training.data.latents import setup
from mobilediff.training.engine.options import GeneratorOptions, RunLimits, run_stage
from mobilediff.training.engine.pipelines import FrozenParts, exporter, make_pipeline, sampler
from mobilediff.training.engine.trainer import TrainingStep


@dataclass
class TeacherOptions(GeneratorOptions):
    """Options of the stage.

    Attributes:
        vae: folder of the frozen autoencoder.
        text: folder that holds `text_encoder` and `tokenizer`.
        network: JSON config of the network.
        weights: folder of a trained network of that config to start from; None for random weights.
        flow_matching: the straight path and its velocity (arXiv 2210.02747) in the place of the cosine schedule and v,
            at times from a logit-normal distribution (arXiv 2403.03206, section 3.1) instead of a uniform one.
    """

    vae: str = ""
    text: str = ""
    network: str = "mobilediff/models/configs/teacher.json"
    weights: str | None = None
    flow_matching: bool = False


def train(options: TeacherOptions, limits: RunLimits) -> bool:
    """Train a generator on the data alone; see `Trainer.fit` for the returned value."""
    parts = FrozenParts.load(options.vae, options.text)
    trainer, data = setup(options, limits, parts)
    scheduler = flow_scheduler() if options.flow_matching else noise_scheduler()
    unet = build_network(options.network, data.latents, options.weights)
    module = trainer.add("unet", unet)
    pipeline = make_pipeline(parts, unet, scheduler, options)

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        batch = data.draw(step)
        if options.flow_matching:
            times = torch.randn(batch.caption_ids.shape, generator=step.generator, device=trainer.device).sigmoid()
            timesteps = times * NUM_TRAIN_TIMESTEPS
            z = diffuse_straight(batch.latents, times, step.generator)
        else:
            timesteps = data.draw_timesteps(step)
            z = diffuse(batch.latents, timesteps, step.generator)
        with trainer.autocast():
            prediction = module(z.noisy, timesteps, **data.conditioning(batch.caption_ids)).sample
        loss = F.mse_loss(prediction.float(), z.velocity)
        trainer.update("unet", loss)
        return {"loss_task": loss}

    return trainer.fit(step_function, exporter(pipeline), sampler(trainer, pipeline))


if __name__ == "__main__":
    run_stage(train, TeacherOptions)
