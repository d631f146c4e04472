"""Extract features by transformers' DINOv2 (Oquab et al., arXiv 2304.07193), weights in safetensors only.

The Frechet distance of its features follows people's judgement of images better than Inception's does (Stein et al.,
arXiv 2306.04675, who take the ViT-L/14; the default here is the smaller ViT-B/14).
"""

from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from transformers import Dinov2Model

from eval.extractors.base import Extractor, registered
from eval.extractors.pixels import bicubic
from eval.protocol import file_sha256
from mobilediff.checkpoints import load_component

DINOV2 = "transformers-dinov2"
DINOV2_HUB_NAME = "facebook/dinov2-base"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
INPUT_SIZE = 224
DINOV2_RESIZE = "bicubic to 224x224, antialiased and rounded as by Pillow; ImageNet mean and deviation"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@registered(DINOV2)
class Dinov2FeatureExtractor(FeatureExtractorBase):
    """Extract `class_token` of images: the class token after the last layer and norm.

    `feature_extractor_weights_path`, an argument of torch-fidelity, names the folder of the weights.
    """

    def __init__(self, name, features_list, feature_extractor_weights_path=None, **kwargs):
        super().__init__(name, features_list)
        self.network = load_component(Dinov2Model, dinov2_folder(feature_extractor_weights_path))

    @staticmethod
    def get_provided_features_list():
        return ("class_token",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "class_token"

    @staticmethod
    def can_be_compiled():
        return True

    @staticmethod
    def get_dummy_input_for_compile():
        return torch.zeros(4, 3, INPUT_SIZE, INPUT_SIZE, dtype=torch.uint8)

    def forward(self, input):
        """Extract features, (float32 [N, F],), of uint8 images [N, 3, H, W] of any size."""
        return (self.network(dinov2_inputs(input)).last_hidden_state[:, 0],)


def dinov2_inputs(images: torch.Tensor) -> torch.Tensor:
    """Preprocess uint8 [N, 3, H, W] to float32 [N, 3, 224, 224] by `DINOV2_RESIZE`; errors as in `bicubic`."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (bicubic(images, INPUT_SIZE) / 255 - mean) / std


def dinov2_folder(weights: str | Path | None = None) -> Path:
    """Find the folder of a DINOv2: the named one, else that of `DINOV2_HUB_NAME`, cached or downloaded.

    Raises:
        FileNotFoundError: the folder lacks one of its two files, or the hub's cannot be had.
    """
    if weights is None:
        try:
            return [Path(hf_hub_download(DINOV2_HUB_NAME, name)) for name in (CONFIG_FILE, WEIGHTS_FILE)][0].parent
        except Exception as error:  # the hub's client and the network raise errors without a common parent
            raise FileNotFoundError(
                f"no DINOv2: {error}. It comes from https://huggingface.co/{DINOV2_HUB_NAME}; --extractor-weights "
                f"FOLDER takes its {CONFIG_FILE} and {WEIGHTS_FILE}"
            ) from error
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (Path(weights) / name).is_file():
            raise FileNotFoundError(
                f"--extractor-weights {weights} has no {name}: of a DINOv2 it is the folder of {CONFIG_FILE} and "
                f"{WEIGHTS_FILE}, as in https://huggingface.co/{DINOV2_HUB_NAME}"
            )
    return Path(weights)


def dinov2_extractor(weights: str | Path | None = None) -> Extractor:
    """Make the DINOv2 extractor; arguments and errors as in `dinov2_folder`. Its hash is that of the weights' file."""
    folder = dinov2_folder(weights)
    sha256 = file_sha256(folder / WEIGHTS_FILE)
    return Extractor(DINOV2, folder, sha256, "class_token", "frechet_distance_dinov2", DINOV2_RESIZE)
