"""Load open_clip's models, weights as tensors alone, and extract features by their image tower."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from eval.extractors.base import Extractor, registered
from eval.protocol import state_dict_sha256

OPEN_CLIP = "open-clip-image"
OPEN_CLIP_RESIZE = "open_clip's own preprocessing"
EXAMPLE = "ViT-B-32:laion2b_s34b_b79k"


@registered(OPEN_CLIP)
class OpenClipFeatureExtractor(FeatureExtractorBase):
    """Extract `image_embeds`, not normalised, of images by the image tower.

    `feature_extractor_weights_path`, an argument of torch-fidelity, names a file of weights; `clip_model` is as in
    `load_open_clip`.
    """

    def __init__(self, name, features_list, feature_extractor_weights_path=None, *, clip_model: str, **kwargs):
        super().__init__(name, features_list)
        self.network, self.preprocess = load_open_clip(clip_model, feature_extractor_weights_path)

    @staticmethod
    def get_provided_features_list():
        return ("image_embeds",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "image_embeds"

    @staticmethod
    def can_be_compiled():
        return False

    def forward(self, input):
        """Embed uint8 images [N, 3, H, W] of any size: (float32 [N, P],)."""
        return (self.network.encode_image(preprocessed(input, self.preprocess)).float(),)


def preprocessed(images: torch.Tensor, preprocess: Callable) -> torch.Tensor:
    """Transform uint8 [N, 3, H, W] by open_clip's transform of Pillow images, on their device."""
    pictures = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).cpu().numpy()]
    return torch.stack([preprocess(picture) for picture in pictures]).to(images.device)


def load_open_clip(model: str, weights: str | Path | None = None) -> tuple[Any, Callable]:
    """Load a model in evaluation mode on the CPU, and its transform of Pillow images.

    Args:
        model: architecture:tag, as "ViT-B-32:laion2b_s34b_b79k"; the tag may be left out beside `weights`.
        weights: a file to read instead of the tag's download or cache.

    Raises:
        ValueError: an unknown architecture or tag, a tag of weights that the architecture is not right for, or a
            corrupt file.
        FileNotFoundError: the weights cannot be had.
    """
    import open_clip

    architecture, _, tag = model.partition(":")
    if architecture not in open_clip.list_models():
        raise ValueError(
            f"--clip-model {model!r}: open_clip has no {architecture!r}; open_clip.list_models() has the names"
        )
    if weights and not Path(weights).is_file():
        raise FileNotFoundError(f"the file of weights {weights} does not exist")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags and (tag or not weights):
        raise ValueError(f"--clip-model {model!r}: accepted are {architecture}:TAG with {', '.join(tags) or 'a file'}")
    of_tag = open_clip.get_pretrained_cfg(architecture, tag)
    config = open_clip.get_model_config(architecture)
    quick_gelu = config.get("quick_gelu", False)  # pyright: ignore[reportOptionalMemberAccess] - a listed architecture
    if tag and of_tag.get("quick_gelu", False) != quick_gelu:
        raise ValueError(
            f"--clip-model {model!r}: the weights are of another activation than the architecture; open_clip has "
            "architectures with and without -quickgelu in their name"
        )
    transform: dict[str, Any] = {
        f"image_{name}": of_tag.get(name) for name in ("mean", "std", "interpolation", "resize_mode")
    }
    try:
        network, _, preprocess = open_clip.create_model_and_transforms(
            architecture, pretrained=str(weights or tag), weights_only=True, **transform
        )
    except Exception as error:  # open_clip, the hub's client and torch raise errors without a common parent
        if weights:
            raise ValueError(f"{weights} is no whole file of {architecture}'s weights: {error}") from error
        raise FileNotFoundError(
            f"the weights of {model} cannot be had: {error}. They come from "
            f"{of_tag.get('hf_hub') or of_tag.get('url')}; --clip-weights FILE (of eval.clip_score) or "
            "--extractor-weights FILE (of the others) takes a file"
        ) from error
    return network.eval(), preprocess  # pyright: ignore[reportReturnType] - several transforms only under `aug_cfg`


def clip_extractor(clip_model: str | None, weights: str | Path | None = None) -> Extractor:
    """Make the extractor of an open_clip image tower; other arguments and errors as in `load_open_clip`.

    Raises:
        ValueError: no model is named.
    """
    if not clip_model:
        raise ValueError(f"--extractor clip needs --clip-model ARCHITECTURE:TAG, as {EXAMPLE}")
    sha256 = state_dict_sha256(load_open_clip(clip_model, weights)[0])
    weights, options = Path(weights) if weights else None, {"clip_model": clip_model}
    result_key = "frechet_distance_clip"
    return Extractor(OPEN_CLIP, weights, sha256, "image_embeds", result_key, OPEN_CLIP_RESIZE, options)
