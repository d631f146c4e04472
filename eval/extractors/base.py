"""Describe and register feature extractors, and extract features in torch-fidelity's loop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.data import Dataset
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from eval.extractors.pixels import shrinking, shrunk

BATCH_SIZE = 250


@dataclass(frozen=True)
class Extractor:
    """Describe a feature extractor: name, weights and layers.

    Attributes:
        name: as registered with torch-fidelity.
        weights: a folder (judge, DINOv2), a file (EfficientNet, Inception, CLIP), or None for a CLIP that open_clip
            finds.
        sha256: of the weights.
        layer: features of the Frechet distance and of all that compares sets of features.
        result_key: of the Frechet distance in a result.
        resize: of an image on its way in, in words.
        options: further arguments of the registered class.
        logits: layers of a classifier's logits, of its classes first; none of an extractor without classes.
        shipped_as: start of the names of the files with its statistics of CIFAR-10; None where none ship.
        input_size: side of the squares that it takes, to which larger ones are shrunk; None for images of any size.
    """

    name: str
    weights: Path | None
    sha256: str
    layer: str
    result_key: str
    resize: str
    options: dict[str, str] = field(default_factory=dict)
    logits: tuple[str, ...] = ()
    shipped_as: str | None = None
    input_size: int | None = None

    def protocol(self, images: torch.Tensor | None = None) -> dict[str, str]:
        """Return the extractor's part of a protocol.

        Args:
            images: that it is of, uint8 [N, 3, H, W], whose own size may have to be stated; None for images of the
                extractor's.
        """
        stated = {"extractor": self.name, "extractor_sha256": self.sha256, "resize": self.resize} | self.options
        return stated if images is None else stated | shrinking(images, self.input_size)


def registered(name: str) -> Callable[[type], type]:
    """Register a class with torch-fidelity under `name`, once a process."""

    def register(cls: type) -> type:
        if name not in FEATURE_EXTRACTORS_REGISTRY:
            register_feature_extractor(name, cls)
        return cls

    return register


class _InMemory(Dataset):
    def __init__(self, images: torch.Tensor):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def extract_features(
    extractor: Extractor,
    images: torch.Tensor,
    names: tuple[str, ...],
    batch_size: int = BATCH_SIZE,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> dict[str, torch.Tensor]:
    """Extract features of uint8 images [N, 3, H, W] in torch-fidelity's own loop.

    Args:
        names: features that the extractor provides.

    Returns:
        Each name's features, [N, C], on the CPU; those of larger images than the extractor takes are of `shrunk` ones.

    Raises:
        ValueError: fewer than 2 images, or images that the extractor refuses.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} images; at least 2 are needed")
    images = shrunk(images, extractor.input_size)
    cuda = torch.device(device).type == "cuda"
    weights = str(extractor.weights) if extractor.weights else None
    settings = {"feature_extractor_weights_path": weights, "verbose": False} | extractor.options
    module = create_feature_extractor(extractor.name, list(names), cuda=cuda, **settings)
    dataset = _InMemory(images)
    # save_cpu_ram: no worker processes, as the images are in memory already
    return get_featuresdict_from_dataset(dataset, module, batch_size, cuda, save_cpu_ram=True, verbose=progress)
