"""Define a stage by its methods, and run it from a command line."""

from pathlib import Path
from typing import Any, Generic

import torch
from accelerate import PartialState

from mobilediff.command import run_command
from mobilediff.training.engine.options import OptionsT, RunLimits, parse_options
from mobilediff.training.engine.trainer import Draws, Trainer


class Stage(Generic[OptionsT]):
    """Train one stage of the recipe; `run` calls `setup`, then `step` in a loop.

    Args:
        options: of the run.
        limits: of this command.
    """

    trainer: Trainer

    def __init__(self, options: OptionsT, limits: RunLimits):
        self.options, self.limits = options, limits

    def setup(self) -> None:
        """Load and check the inputs, then make `self.trainer`, the networks and the data.

        The trainer seeds the initial weights and makes the run folder, so bad inputs are refused before it and
        networks are made after it.
        """
        raise NotImplementedError

    def batch(self, draws: Draws) -> Any:
        """Draw the batch of a step; `step` gets it."""
        raise NotImplementedError

    def step(self, batch: Any, draws: Draws) -> dict[str, torch.Tensor]:
        """Compute the losses, hand each to `Trainer.update`, and return scalars to log."""
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Measure the networks every `sample_every` steps, on the main process; returns figures to log."""
        return {}

    def export(self, folder: Path) -> None:
        """Write the networks, which hold their averaged weights, into an empty folder."""
        raise NotImplementedError

    def run(self) -> bool:
        """Train; see `Trainer.fit` for the returned value and the errors."""
        self.setup()
        return self.trainer.fit(self)


def run_stage(stage_class: type[Stage], options_class: type[OptionsT]) -> None:
    """Run a stage from its command line; a refused input ends it with one line."""
    options, limits = parse_options(options_class)

    def train():
        stage_class(options, limits).run()
        PartialState().destroy_process_group()  # its threads may end a process that leaves with them by an abort

    run_command(train)
