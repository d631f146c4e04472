"""Embed images and texts by the bundled CLIP, or by one of open_clip's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import CLIPTextModelWithProjection

from eval import WEIGHTS
from eval.extractors.judge import IMAGE_SIZE, RESIZE
from eval.extractors.open_clip import OPEN_CLIP_RESIZE, load_open_clip, preprocessed
from eval.extractors.pixels import shrinking, shrunk
from eval.metrics.pauses import pause_before
from eval.protocol import folder_sha256, state_dict_sha256
from mobilediff.checkpoints import load_component, load_tokenizer
from mobilediff.images import to_float
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.sampling.prompts import encode_text

BUNDLED = "mobilediff-clip"
CLIP_FOLDER = WEIGHTS / "clip"
BATCH_SIZE = 100


@dataclass(frozen=True)
class ClipModel:
    """Hold the image and text towers of a CLIP.

    Attributes:
        name: "mobilediff-clip", or open_clip's architecture and tag, or the file of its weights.
        sha256: of the weights.
        resize: of an image on its way in, in words.
        embed_images: uint8 [B, 3, H, W] -> [B, P], not normalised.
        embed_texts: B strings -> [B, P], not normalised.
        input_size: side of the squares that it takes, to which larger ones are shrunk; None for images of any size.
    """

    name: str
    sha256: str
    resize: str
    embed_images: Callable[[torch.Tensor], torch.Tensor]
    embed_texts: Callable[[list[str]], torch.Tensor]
    input_size: int | None = None

    def protocol(self, images: torch.Tensor | None = None) -> dict:
        """Return the model's part of a protocol; `images` as in `Extractor.protocol`."""
        stated = {"clip_model": self.name, "clip_sha256": self.sha256, "resize": self.resize}
        return stated if images is None else stated | shrinking(images, self.input_size)


def bundled_clip(folder: str | Path | None = None, device: torch.device | str = "cpu") -> ClipModel:
    """Load the project's own CLIP.

    Raises:
        FileNotFoundError: there are no weights in `folder`.
        ValueError: the weights are corrupt, truncated or not all there.
    """
    folder = Path(folder or CLIP_FOLDER)
    missing = [part for part in ("image_encoder", "text_encoder", "tokenizer") if not (folder / part).is_dir()]
    if missing:
        raise FileNotFoundError(f"{folder} holds no CLIP: {', '.join(missing)} missing")
    image_encoder = load_component(ImageEncoder, folder / "image_encoder").to(device)
    pause_before(image_encoder.levels)
    text_encoder = load_component(CLIPTextModelWithProjection, folder / "text_encoder").to(device)
    tokenizer = load_tokenizer(folder / "tokenizer")

    def embed_images(images: torch.Tensor) -> torch.Tensor:
        if images.shape[2:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"images are {images.shape[3]}x{images.shape[2]}; {BUNDLED} takes {IMAGE_SIZE}x{IMAGE_SIZE}: "
                f"--resize {IMAGE_SIZE} brings them there"
            )
        return image_encoder(to_float(images.to(device))).image_embeds

    def embed_texts(texts: list[str]) -> torch.Tensor:
        counts = [len(ids) for ids in tokenizer(texts).input_ids]
        check_texts_are_read(BUNDLED, texts, counts, tokenizer.model_max_length)
        return encode_text(tokenizer, text_encoder, texts)[1]

    return ClipModel(BUNDLED, folder_sha256(folder), RESIZE, embed_images, embed_texts, IMAGE_SIZE)


def open_clip_model(model: str, weights: str | Path | None = None, device: torch.device | str = "cpu") -> ClipModel:
    """Load one of open_clip's models to a device; other arguments and errors as in `load_open_clip`."""
    import open_clip

    network, preprocess = load_open_clip(model, weights)
    network.to(device)
    architecture, _, tag = model.partition(":")
    tokenizer = open_clip.get_tokenizer(architecture)

    def embed_images(images: torch.Tensor) -> torch.Tensor:
        return network.encode_image(preprocessed(images.to(device), preprocess))

    def embed_texts(texts: list[str]) -> torch.Tensor:
        if isinstance(tokenizer, open_clip.SimpleTokenizer):  # encodes without the tokens of start and end
            counts = [len(tokenizer.encode(text)) + 2 for text in texts]
        else:
            counts = [len(ids) for ids in tokenizer.tokenizer(texts).input_ids]
        most: int = tokenizer.context_length  # pyright: ignore[reportAssignmentType] - get_tokenizer sets it
        check_texts_are_read(model, texts, counts, most)
        return network.encode_text(tokenizer(texts).to(device))

    name = f"open_clip {architecture}:{tag}" if not weights else f"open_clip {architecture}, {Path(weights).name}"
    return ClipModel(name, state_dict_sha256(network), OPEN_CLIP_RESIZE, embed_images, embed_texts)


def check_texts_are_read(model: str, texts: list[str], counts: list[int], most: int) -> None:
    """Refuse a text of more tokens than a model reads, whose end, the noun perhaps, would not be scored.

    Raises:
        ValueError: there is one; names it.
    """
    for text, count in zip(texts, counts, strict=True):
        if count > most:
            raise ValueError(f"the text {text!r} has {count} tokens, but {model} reads {most}: shorten the template")


@torch.no_grad()
def normalized_texts(clip: ClipModel, texts: list[str]) -> torch.Tensor:
    """Embed N texts with length 1, float64 [N, P] on the CPU."""
    batches = [clip.embed_texts(texts[i : i + BATCH_SIZE]).cpu() for i in range(0, len(texts), BATCH_SIZE)]
    return F.normalize(torch.cat(batches).double(), dim=1)


@torch.no_grad()
def normalized_images(clip: ClipModel, images: torch.Tensor, progress: bool = True) -> torch.Tensor:
    """Embed images with length 1.

    Args:
        clip: the model.
        images: uint8 [N, 3, H, W].
        progress: show a bar.

    Returns:
        float64 [N, P] on the CPU.
    """
    batches = []
    with tqdm(total=len(images), desc=clip.name, unit="image", leave=False, disable=not progress) as bar:
        for batch in images.split(BATCH_SIZE):
            batches.append(clip.embed_images(shrunk(batch, clip.input_size)).cpu())
            bar.update(len(batch))
    return F.normalize(torch.cat(batches).double(), dim=1)
