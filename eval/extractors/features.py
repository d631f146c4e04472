"""Keep the features of an image set: one pass feeds distance, quality and accuracy."""

import torch

from eval.extractors.base import BATCH_SIZE, Extractor, extract_features
from eval.samples.images import ImageSet


class FeatureSet:
    """Hold images and their features, extracted at the first call and kept.

    Args:
        images: measured images, [N, 3, H, W].
        device: of the extractors.
        first: of fewer images, the first ones; features of its whole batches are not extracted again.
    """

    def __init__(self, images: ImageSet, device: torch.device | str = "cpu", first: "FeatureSet | None" = None):
        self.images, self.device, self._first = images, device, first
        self._features: dict[frozenset, dict[str, torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def of(self, extractor: Extractor) -> dict[str, torch.Tensor]:
        """Return the extractor's features and logits by layer, each [N, C]; errors as in `extract_features`."""
        key = frozenset(extractor.protocol().items())
        if key not in self._features:
            layers = (extractor.layer, *extractor.logits)
            # whole batches alone: a feature then is, to the last bit, that of one pass over all images
            there = len(self._first or ()) // BATCH_SIZE * BATCH_SIZE
            features = extract_features(extractor, self.images.images[there:], layers, device=self.device)
            if self._first and there:
                first = self._first.of(extractor)
                features = {name: torch.cat([first[name][:there], features[name]]) for name in layers}
            self._features[key] = features
        return self._features[key]
