"""Train a one-step supernet to tolerate the removal of any of its blocks (SnapFusion, arXiv 2306.00980, section 4.1).

At each step every ResNet block and transformer is executed with probability p, else left out: what stays of it is the
identity, or the 1 x 1 convolution of a ResNet block that changes the number of channels. The losses are those of the
stage `end_to_end`. The supernet is the one-step student with further blocks, which change nothing at the start.
"""

from typing import Any

import torch
from pydantic import PositiveInt, field_validator

from mobilediff.compression.blocks import block_names, without_blocks
from mobilediff.compression.growing import grow
from mobilediff.files import read_json, write_json
from mobilediff.models.build import build_network
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.training.bases.picture_stage import PictureBatch, PictureOptions, PictureStage
from mobilediff.training.engine.options import Fraction
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws, derived_seed
from mobilediff.training.losses.weighted import weighted_sum

BLOCK_LOSSES = "block_losses.json"
TRIAL_LOSS_SAMPLES = 16


class RobustOptions(PictureOptions):
    """Configure the stage `robust`.

    Attributes:
        network: JSON config of the supernet, a `MobileUNet`.
        initial_weights: folder of a network of that config to start from; None for the student's, with blocks added.
        execution_probability: p, of each block at each step.
        loss_samples: pictures that the loss without each single block is measured on, the same each time.
    """

    network: str = "mobilediff/models/configs/supernet.json"
    execution_probability: Fraction = 0.9
    loss_samples: PositiveInt = 250

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


class Robust(PictureStage[RobustOptions]):
    """Train a supernet and its decoder, with another choice of its blocks at each step."""

    def setup(self) -> None:
        super().setup()
        if self.trainer.accelerator.num_processes > 1:
            raise ValueError(
                f"the processes are {self.trainer.accelerator.num_processes}; accepted is 1, as each would skip "
                "blocks of its own"
            )
        self.names = block_names(self.unet)

    def network(self, student: MobileUNet) -> MobileUNet:
        options = self.options
        unet = build_network(options.network, self.data.latents, options.initial_weights)
        if not isinstance(unet, MobileUNet):
            raise ValueError(f"{options.network} is of a {type(unet).__name__}; accepted is a MobileUNet")
        return grow(student, unet) if options.initial_weights is None else unet

    def run(self) -> bool:
        self.setup()
        if not self.limits.benchmark:
            self.record_block_losses("before")
        finished = self.trainer.fit(self)
        if finished:
            self.record_block_losses("after")
        return finished

    def forward(self, batch: PictureBatch, draws: Draws) -> tuple[torch.Tensor, list[torch.Tensor]]:
        skipped = draw_skipped(self.names, self.options.execution_probability, draws.generator)
        with without_blocks(self.unet, skipped):
            return super().forward(batch, draws)

    def validate(self) -> dict[str, float]:
        with self.trainer.averaged_weights():
            losses = self.block_losses()
        without = list(losses["without"].values())
        figures = {"loss_whole": losses["whole"], "loss_without_a_block": sum(without) / len(without)}
        return super().validate() | figures | {"loss_without_the_worst_block": max(without)}

    @torch.no_grad()
    def block_losses(self) -> dict:
        """Measure the weighted distance to the student's pictures, of the whole network and without each single block.

        Noisy latents, captions and timesteps are the same each time.

        Returns:
            `whole`, and `without`: by name of the block.
        """
        sums = dict.fromkeys([None, *self.names], 0.0)
        indices = torch.arange(min(self.options.loss_samples, self.trainer.data_size), device=self.trainer.device)
        for chunk in indices.split(self.options.sample_batch_size):
            seed = derived_seed(self.options.seed, "block losses", int(chunk[0]))
            draws = Draws(0, chunk, torch.Generator(device=self.trainer.device).manual_seed(seed))
            batch = self.batch(draws)
            before = self.draw(self.start, batch)
            for name in sums:
                with without_blocks(self.unet, [name] if name else []):
                    terms = self.distances(self.draw(self.pictures, batch), before)
                sums[name] += weighted_sum(terms, self.distance_weights).item() * len(chunk)
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
