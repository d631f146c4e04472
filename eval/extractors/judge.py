"""Extract features by the bundled classifier, the judge."""

import sys
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from eval import WEIGHTS
from eval.extractors.base import Extractor, registered
from eval.metrics.pauses import pause_before
from eval.protocol import folder_sha256
from mobilediff.checkpoints import load_component
from mobilediff.images import to_float
from mobilediff.models.image_encoder import ImageEncoder

JUDGE = "mobilediff-judge"
JUDGE_FOLDER = WEIGHTS / "judge"
IMAGE_SIZE = 32
RESIZE = "none, native 32x32"


@registered(JUDGE)
class JudgeFeatureExtractor(FeatureExtractorBase):
    """Extract features and logits by the judge from images of its own size.

    Provides `features` (float64, so that torch-fidelity's own statistics are float64), `class_logits` and
    `noun_logits`. A constructor argument of torch-fidelity names the folder of other weights:
    `feature_extractor_weights_path`.
    """

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        super().__init__(name, features_list)
        self.encoder = load_judge(feature_extractor_weights_path or JUDGE_FOLDER)
        pause_before(self.encoder.levels)

    @staticmethod
    def get_provided_features_list():
        return "features", "class_logits", "noun_logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return {"isc": "class_logits", "fid": "features", "kid": "features", "prc": "features"}[metric]

    @staticmethod
    def can_be_compiled():
        return True

    @staticmethod
    def get_dummy_input_for_compile():
        return torch.zeros(4, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)

    def forward(self, input):
        """Extract the requested features, [N, C] each, of uint8 images [N, 3, 32, 32]."""
        if not torch.is_tensor(input) or input.dtype != torch.uint8:
            raise ValueError(f"images are {getattr(input, 'dtype', type(input))}; accepted is a uint8 tensor")
        if input.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"images are {tuple(input.shape)}; accepted is [N, 3, {IMAGE_SIZE}, {IMAGE_SIZE}]: "
                f"--resize {IMAGE_SIZE} brings them there"
            )
        output = self.encoder(to_float(input))
        features = {"features": output.features.double()}
        features |= {"class_logits": output.class_logits, "noun_logits": output.noun_logits}
        return tuple(features[name] for name in self.features_list)


def load_judge(folder: str | Path) -> ImageEncoder:
    """Load the judge in evaluation mode.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the weights are corrupt or not all there, or lack the class or the noun head.
    """
    encoder = load_component(ImageEncoder, folder)
    if encoder.class_head is None or encoder.noun_head is None:
        raise ValueError(f"{folder} is no judge: it lacks the class head or the noun head")
    return encoder.requires_grad_(False)


def judge_extractor() -> Extractor:
    """Make the extractor of the bundled judge.

    Raises:
        FileNotFoundError: its weights are not there.
    """
    folder = JUDGE_FOLDER
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} holds no judge: expected a folder that ImageEncoder.save_pretrained wrote")
    sha256, logits = folder_sha256(folder), ("class_logits", "noun_logits")
    return Extractor(
        JUDGE,
        folder,
        sha256,
        "features",
        "frechet_distance_judge",
        RESIZE,
        logits=logits,
        shipped_as="",
        input_size=IMAGE_SIZE,
    )


def say_judge_is_used(reason: str) -> None:
    """Print the line that tells a Frechet distance from FID."""
    line = f"{reason}: the bundled extractor {JUDGE} is used; the number is a Frechet distance and not FID"
    print(line, file=sys.stderr)
