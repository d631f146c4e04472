"""Train the full UNet on the data alone, with caption dropout for classifier-free guidance."""

import torch
import torch.nn.functional as F

from mobilediff.diffusion import (
    NUM_TRAIN_TIMESTEPS,
    Diffused,
    diffuse,
    diffuse_straight,
    flow_scheduler,
    noise_scheduler,
)
from mobilediff.models.build import build_network
from mobilediff.training.bases.generator_stage import GeneratorStage
from mobilediff.training.data.latents import Batch, prepare
from mobilediff.training.engine.options import GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws


class TeacherOptions(GeneratorOptions):
    """Configure the stage `teacher`.

    Attributes:
        vae: folder of the frozen autoencoder.
        text: folder that holds `text_encoder` and `tokenizer`.
        network: JSON config of the network.
        initial_weights: folder of a trained network of that config to start from; None for random weights.
        flow_matching: learn the velocity of the straight path (arXiv 2210.02747) instead of v on the cosine schedule,
            at times from a logit-normal distribution (arXiv 2403.03206, section 3.1) instead of a uniform one.
    """

    vae: str
    text: str
    network: str = "mobilediff/models/configs/teacher.json"
    initial_weights: str | None = None
    flow_matching: bool = False


class Teacher(GeneratorStage[TeacherOptions]):
    """Train a generator on the data alone."""

    def setup(self) -> None:
        options = self.options
        parts = FrozenParts.load(options.vae, options.text)
        self.trainer, self.data = prepare(options, self.limits, parts)
        unet = build_network(options.network, self.data.latents, options.initial_weights)
        self.unet = self.trainer.add("unet", unet)
        self.make_pipeline(parts, unet, flow_scheduler() if options.flow_matching else noise_scheduler())

    def step(self, batch: Batch, draws: Draws) -> dict[str, torch.Tensor]:
        timesteps, z = self.diffuse(batch, draws)
        with self.trainer.autocast():
            prediction = self.unet(z.noisy, timesteps, **self.data.conditioning(batch.caption_ids)).sample
        loss = F.mse_loss(prediction.float(), z.velocity)
        self.trainer.update("unet", loss)
        return {"loss_task": loss}

    def diffuse(self, batch: Batch, draws: Draws) -> tuple[torch.Tensor, Diffused]:
        """Draw timesteps [B], and take the batch's latents [B, C, H, W] to them."""
        if self.options.flow_matching:
            times = torch.randn(
                batch.caption_ids.shape, generator=draws.generator, device=self.trainer.device
            ).sigmoid()
            return times * NUM_TRAIN_TIMESTEPS, diffuse_straight(batch.latents, times, draws.generator)
        timesteps = self.data.draw_timesteps(draws)
        return timesteps, diffuse(batch.latents, timesteps, draws.generator)


if __name__ == "__main__":
    run_stage(Teacher, TeacherOptions)
