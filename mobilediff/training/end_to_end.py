"""Train a one-step student, or a pruned one, and its small decoder together on their pictures' moments.

See `bases.picture_stage`. With `int8_export` both compute as an int8 export of them does, so that they learn to draw
well in int8.
"""

import torch

from mobilediff.checkpoints import load_component
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.bases.picture_stage import OneStepPictures, PictureBatch, PictureOptions, PictureStage
from mobilediff.training.engine.fake_quantization import (
    FakeQuantization,
    calibration_batch,
    find_layers,
    quantized_layers,
)
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws

# Steps after which the ranges of int8 follow the weights.
CALIBRATE_EVERY = 50


class EndToEndOptions(PictureOptions):
    """Configure the stage `end_to_end`.

    Attributes:
        int8_export: folder of an int8 export of the student to ONNX; the layers that it quantises compute as in int8,
            for the run's own grids and figures as well, while the exported weights are float. None for float alone.
    """

    int8_export: str | None = None


class EndToEnd(PictureStage[EndToEndOptions]):
    """Train network and decoder, from the student's weights or `initial_weights`."""

    def check(self, student: MobileDiffusionPipeline) -> None:
        folder = self.options.int8_export
        if folder is not None:
            self.layers, self.calibration = quantized_layers(folder), calibration_batch(student)
            find_layers(OneStepPictures(student.unet, student.vae), self.layers)

    def network(self, student: MobileUNet) -> MobileUNet:
        folder = self.options.initial_weights
        return student if folder is None else load_component(MobileUNet, folder)

    def setup(self) -> None:
        super().setup()
        self.quantization = None
        if self.options.int8_export is not None:
            self.quantization = FakeQuantization(OneStepPictures(self.unet, self.pipeline.vae), self.layers)
            self.trainer.keep("quantization", self.quantization)
            self.calibrate(self.quantization)  # a state may be saved before the first step

    @torch.no_grad()
    def calibrate(self, quantization: FakeQuantization) -> None:
        """Take the ranges of int8 anew, on the inputs that an export of the present weights would take them on."""
        noise, hidden_states, pooled = (values.to(self.trainer.device) for values in self.calibration)
        timesteps = self.timesteps[:1].expand(len(noise))
        with self.trainer.autocast(), quantization.calibrating():
            self.pictures(noise, timesteps, encoder_hidden_states=hidden_states, class_labels=pooled)

    def step(self, batch: PictureBatch, draws: Draws) -> dict[str, torch.Tensor]:
        if self.quantization is not None and draws.index % CALIBRATE_EVERY == 0:
            self.calibrate(self.quantization)
        return super().step(batch, draws)


if __name__ == "__main__":
    run_stage(EndToEnd, EndToEndOptions)
