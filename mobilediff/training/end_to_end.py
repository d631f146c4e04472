"""Train a one-step student, or a pruned one, and its small decoder together on their pictures' moments.

See `bases.picture_stage`.
"""

from mobilediff.checkpoints import load_component
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.training.bases.picture_stage import PictureOptions, PictureStage
from mobilediff.training.engine.stage import run_stage


class EndToEnd(PictureStage[PictureOptions]):
    """Train network and decoder, from the student's weights or `initial_weights`."""

    def network(self, student: MobileUNet) -> MobileUNet:
        folder = self.options.initial_weights
        return student if folder is None else load_component(MobileUNet, folder)


if __name__ == "__main__":
    run_stage(EndToEnd, PictureOptions)
