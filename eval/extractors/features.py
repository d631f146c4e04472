"""Keep the features of an image set: one pass feeds distance, quality and accuracy."""

import torch

from eval.extractors.base import Extractor, extract_features
from eval.samples.images import ImageSet


class FeatureSet:
    """Hold images and their features, extracted at the first call and kept.

    Args:
        images: measured images, [N, 3, H, W].
        device: of the extractors.
    """

    def __init__(self, images: ImageSet, device: torch.device | str = "cpu"):
        self.images, self.device = images, device
        self._features: dict[frozenset, dict[str, torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def of(self, extractor: Extractor) -> dict[str, torch.Tensor]:
        """Return the extractor's features and logits by layer, each [N, C]; errors as in `extract_features`."""
        key = frozenset(extractor.protocol().items())
        if key not in self._features:
            layers = (extractor.layer, *extractor.logits)
            self._features[key] = extract_features(extractor, self.images.images, layers, device=self.device)
        return self._features[key]
