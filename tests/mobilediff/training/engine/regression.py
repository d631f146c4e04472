"""A stage whose every random draw shows in its weights."""

import torch
from safetensors.torch import save_file

from mobilediff.training.engine.options import RunLimits, TrainingOptions
from mobilediff.training.engine.stage import Stage
from mobilediff.training.engine.trainer import Trainer

FULL = RunLimits()


class Regression(Stage[TrainingOptions]):
    """A network with dropout that learns noise drawn in the step: whatever is not restored changes its weights.

    Its convolutions are channels_last, so optimiser state that comes back in another memory format shows.
    """

    def __init__(self, folder, stop_after=None, optimizer=None, limits=FULL, **changes):
        values = {"steps": 8, "batch_size": 5, "warmup_steps": 2, "dtype": "fp32", "log_every": 1, **changes}
        super().__init__(TrainingOptions(output=str(folder), **values), limits)
        self.stop_after, self.optimizer, self.visited = stop_after, optimizer, []
        self.setup()

    def setup(self):
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.Dropout(0.5), torch.nn.Conv2d(8, 1, 3), torch.nn.Flatten()
        )
        self.trainer = Trainer(self.options, self.limits, data_size=12)
        made = self.optimizer(self.network.parameters()) if self.optimizer else None
        self.module = self.trainer.add("network", self.network, optimizer=made)
        self.inputs = torch.randn(12, 3, 5, 5, generator=torch.Generator().manual_seed(1))

    def batch(self, draws):
        self.visited += draws.indices.tolist()
        return self.inputs[draws.indices]

    def step(self, batch, draws):
        target = batch.mean((1, 2, 3))[:, None] + torch.randn(len(batch), 1, generator=draws.generator)
        loss = (self.module(batch) - target).square().mean()
        self.trainer.update("network", loss)
        self.trainer.stop_requested = draws.index + 1 == self.stop_after
        return {"loss": loss}

    def export(self, folder):
        weight = self.network[0].weight.detach().contiguous()
        save_file({"weight": weight}, folder / "weights.safetensors")

    def fit(self):
        """Train; `run` without another `setup`."""
        return self.trainer.fit(self)
