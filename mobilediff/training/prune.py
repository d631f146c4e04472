"""Prune the one-step student, then repair it against its unpruned self.

Both see the same latents, so that a small VAE's encoder, which gives nearly those of the student's training, serves.
"""

import copy
from typing import Self

import torch
from pydantic import PositiveInt, field_validator, model_validator

from mobilediff.checkpoints import load_pipeline
from mobilediff.compression.blocks import remove_blocks
from mobilediff.compression.pruning import Method, check_pruning_ratio, prune_channels, prune_weights
from mobilediff.diffusion import diffuse, sample_from_velocity, trailing_timesteps
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.training.bases.generator_stage import GeneratorStage
from mobilediff.training.data.latents import Batch, prepare
from mobilediff.training.engine.options import GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts, check_velocity
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws


class PruneOptions(GeneratorOptions):
    """Configure the stage `prune`; VAE and text encoder are the student's.

    Attributes:
        student: pipeline folder of the one-step student.
        method: "structured" (whole channels), "unstructured" (single weights, L1, as MobileGen) or "blocks".
        pruning_ratio: fraction to remove, of the first two methods.
        removed_blocks: module names, of the method "blocks".
        num_intervals: timesteps of the repair, those of the student's own training.
    """

    student: str
    default_num_inference_steps: PositiveInt = 1
    default_guidance_scale: float = 1.0
    method: Method = "structured"
    pruning_ratio: float = 0.3
    removed_blocks: tuple[str, ...] = ()
    num_intervals: PositiveInt = 4

    @field_validator("pruning_ratio")
    @classmethod
    def _check_pruning_ratio(cls, ratio: float) -> float:
        check_pruning_ratio(ratio)
        return ratio

    @model_validator(mode="after")
    def _check_removed_blocks(self) -> Self:
        if (self.method == "blocks") != bool(self.removed_blocks):
            accepted = "one name or more" if self.method == "blocks" else "none"
            given = list(self.removed_blocks)
            raise ValueError(f"option removed_blocks is {given}; accepted with method {self.method} is {accepted}")
        return self


class Prune(GeneratorStage[PruneOptions]):
    """Prune the student and repair it."""

    def setup(self) -> None:
        options = self.options
        source = load_pipeline(options.student)
        check_velocity(source, options.student)
        parts = FrozenParts.of(source)
        self.trainer, self.data = prepare(options, self.limits, parts)
        unet = self.pruned(source.unet)
        self.teacher = self.data.conditioned(self.trainer.frozen(source.unet))
        self.student = self.data.conditioned(self.trainer.add("unet", unet))
        self.timesteps = trailing_timesteps(options.num_intervals, self.trainer.device)
        self.make_pipeline(parts, unet, source.scheduler, guidance_distilled=True)

    def pruned(self, unet: MobileUNet) -> MobileUNet:
        """Copy the network without the pruned channels or blocks, or with pruned weights that stay 0."""
        if self.options.method == "blocks":
            return remove_blocks(unet, self.options.removed_blocks)
        if self.options.method == "structured":
            return prune_channels(unet, self.options.pruning_ratio)
        pruned = copy.deepcopy(unet)
        parameters = dict(pruned.named_parameters())
        for name, mask in prune_weights(pruned, self.options.pruning_ratio).items():
            parameters[name].register_hook(mask.mul)  # without a gradient a pruned weight stays 0
        return pruned

    def step(self, batch: Batch, draws: Draws) -> dict[str, torch.Tensor]:
        interval = torch.randint(
            0,
            self.options.num_intervals,
            batch.caption_ids.shape,
            generator=draws.generator,
            device=self.trainer.device,
        )
        t = self.timesteps[interval]
        z = diffuse(batch.latents, t, draws.generator)
        with torch.no_grad():
            expected = self.teacher(z.noisy, t, batch.caption_ids)
        prediction = self.student(z.noisy, t, batch.caption_ids)
        samples = [sample_from_velocity(z.noisy, v, z.alpha, z.sigma) for v in (prediction, expected)]
        loss_kd_output = (samples[0] - samples[1]).square().mean()
        self.trainer.update("unet", loss_kd_output)
        return {"loss_kd_output": loss_kd_output}


if __name__ == "__main__":
    run_stage(Prune, PruneOptions)
