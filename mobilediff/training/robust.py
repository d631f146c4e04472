"""Train a supernet to tolerate the removal of any of its blocks (SnapFusion, arXiv 2306.00980, section 4.1).

At each step every ResNet block and transformer is executed with probability p, else left out: what stays of it is the
identity, or the 1 x 1 convolution around a ResNet block that changes the number of channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt, field_validator

from mobilediff.compression.blocks import block_names, without_blocks
from mobilediff.diffusion import diffuse, noise_scheduler
from mobilediff.files import read_json, write_json
from mobilediff.models.build import build_network
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.training.bases.generator_stage import GeneratorStage
from mobilediff.training.data.latents import Batch, prepare
from mobilediff.training.engine.options import Fraction, GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts, load_velocity_pipeline
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws, derived_seed

BLOCK_LOSSES = "block_losses.json"
TRIAL_LOSS_SAMPLES = 16


class RobustOptions(GeneratorOptions):
    """Configure the stage `robust`; VAE and text encoder are the teacher's.

    Attributes:
        teacher: pipeline folder.
        network: JSON config of the supernet, a `MobileUNet`.
        initial_weights: folder of a trained network of that config to start from; None for random weights.
        execution_probability: p, of each block at each step.
        lambda_task: weight of the loss against the data.
        lambda_kd_output: weight of the loss against the teacher's prediction.
        loss_samples: latents that the loss without each single block is measured on, the same each time.
    """

    teacher: str
    network: str = "mobilediff/models/configs/supernet.json"
    initial_weights: str | None = None
    execution_probability: Fraction = 0.9
    lambda_task: NonNegativeFloat = 0.5
    lambda_kd_output: NonNegativeFloat = 1.0
    loss_samples: PositiveInt = 1000

    @field_validator("compile")
    @classmethod
    def _check_compile(cls, compile: bool) -> bool:
        if compile:
            raise ValueError("option compile is True; accepted is False, as each step runs another choice of blocks")
        return compile

    def trial_values(self) -> dict:
        return super().trial_values() | {"loss_samples": min(self.loss_samples, TRIAL_LOSS_SAMPLES)}


def draw_skipped(names: list[str], execution_probability: float, generator: torch.Generator) -> list[str]:
    """Draw the blocks that a step leaves out, each with probability 1 - p.

    Args:
        names: of all blocks.
        execution_probability: p.
        generator: of the draw.
    """
    drawn = torch.rand(len(names), generator=generator, device=generator.device) >= execution_probability
    return [name for name, skipped in zip(names, drawn.tolist(), strict=True) if skipped]


class Robust(GeneratorStage[RobustOptions]):
    """Distil the teacher's predictions into a supernet that runs another choice of its blocks at each step."""

    def setup(self) -> None:
        options = self.options
        source = load_velocity_pipeline(options.teacher)
        parts = FrozenParts.of(source)
        self.trainer, self.data = prepare(options, self.limits, parts)
        if self.trainer.accelerator.num_processes > 1:
            raise ValueError(
                f"the processes are {self.trainer.accelerator.num_processes}; accepted is 1, as each would skip "
                "blocks of its own"
            )
        unet = build_network(options.network, self.data.latents, options.initial_weights)
        if not isinstance(unet, MobileUNet):
            raise ValueError(f"{options.network} is of a {type(unet).__name__}; accepted is a MobileUNet")
        self.unet, self.names = unet, block_names(unet)
        self.teacher = self.data.conditioned(self.trainer.frozen(source.unet))
        self.student = self.data.conditioned(self.trainer.add("unet", unet))
        self.make_pipeline(parts, unet, noise_scheduler())

    def run(self) -> bool:
        self.setup()
        if not self.limits.benchmark:
            self.record_block_losses("before")
        finished = self.trainer.fit(self)
        if finished:
            self.record_block_losses("after")
        return finished

    def step(self, batch: Batch, draws: Draws) -> dict[str, torch.Tensor]:
        options, trainer = self.options, self.trainer
        skipped = draw_skipped(self.names, options.execution_probability, draws.generator)
        timesteps = self.data.draw_timesteps(draws)
        z = diffuse(batch.latents, timesteps, draws.generator)
        with torch.no_grad():
            expected = self.teacher(z.noisy, timesteps, batch.caption_ids)
        with without_blocks(self.unet, skipped):
            prediction = self.student(z.noisy, timesteps, batch.caption_ids)
        loss_task = F.mse_loss(prediction, z.velocity)
        loss_kd_output = F.mse_loss(prediction, expected)
        trainer.update("unet", options.lambda_task * loss_task + options.lambda_kd_output * loss_kd_output)
        return {"loss_task": loss_task, "loss_kd_output": loss_kd_output}

    def validate(self) -> dict[str, float]:
        with self.trainer.averaged_weights():
            losses = self.block_losses()
        without = list(losses["without"].values())
        figures = {"loss_whole": losses["whole"], "loss_without_a_block": sum(without) / len(without)}
        return super().validate() | figures | {"loss_without_the_worst_block": max(without)}

    @torch.no_grad()
    def block_losses(self) -> dict:
        """Measure the loss against the data of the whole network and without each single block.

        Latents, captions, timesteps and noise are the same each time.

        Returns:
            `whole`, and `without`: by name of the block.
        """
        sums = dict.fromkeys([None, *self.names], 0.0)
        indices = torch.arange(min(self.options.loss_samples, self.trainer.data_size), device=self.trainer.device)
        for chunk in indices.split(self.options.sample_batch_size):
            seed = derived_seed(self.options.seed, "block losses", int(chunk[0]))
            draws = Draws(0, chunk, torch.Generator(device=self.trainer.device).manual_seed(seed))
            batch, timesteps = self.data.draw(draws), self.data.draw_timesteps(draws)
            z = diffuse(batch.latents, timesteps, draws.generator)
            for name in sums:
                with without_blocks(self.unet, [name] if name else []):
                    prediction = self.student(z.noisy, timesteps, batch.caption_ids)
                sums[name] += F.mse_loss(prediction, z.velocity).item() * len(chunk)
        means = {name: total / len(indices) for name, total in sums.items()}
        return {"whole": means.pop(None), "without": means}

    def record_block_losses(self, when: str) -> None:
        """Write the losses of `block_losses` into the run folder, once "before" training and once "after"."""
        file = self.trainer.folder / BLOCK_LOSSES
        recorded: dict[str, Any] = {"loss_samples": self.options.loss_samples}
        if file.is_file():
            recorded = read_json(file)
        if when not in recorded:
            with self.trainer.averaged_weights():
                recorded[when] = self.block_losses()
            write_json(file, recorded)


if __name__ == "__main__":
    run_stage(Robust, RobustOptions)
