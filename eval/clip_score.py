"""CLIP score: 100 x cosine of image and prompt, beside the score of real images under the same template.

    python -m eval.clip_score --model checkpoints/student-8step --n 2000
    python -m eval.clip_score --images outputs/one-step --clip-model ViT-B-32:laion2b_s34b_b79k

The cosine is raw: neither rescaled nor cut at zero. Without --clip-model the bundled CLIP is used, and named.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import PartialState
from tqdm import tqdm
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from eval.bootstrap import mean_interval
from eval.extractors import IMAGE_SIZE, RESIZE
from eval.images import ImageSet, real_images
from eval.inputs import add_input_arguments, measure_repeatedly
from eval.open_clip_models import OPEN_CLIP_RESIZE, load_open_clip, preprocessed
from eval.protocol import folder_sha256, measured_with, read_json, state_dict_sha256
from eval.show import show_result
from mobilediff.captions import CLASS_NAMES, caption
from mobilediff.checkpoints import load_component
from mobilediff.data import DATA_VARIABLE
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.pipeline import encode_text
from mobilediff.training.augment import to_float

BUNDLED = "mobilediff-clip"
CLIP_FOLDER = Path(__file__).parent / "weights" / "clip"
SHIPPED_REAL_SCORE = Path(__file__).parent / "weights" / "reference" / "clip_score.json"
BATCH_SIZE = 100


@dataclass(frozen=True)
class ClipModel:
    """Two towers, ready to be asked.

    Attributes:
        name: "mobilediff-clip", or open_clip's architecture and weights.
        sha256: of the weights.
        resize: what is done to a 32 x 32 image on its way in.
        embed_images: uint8 [B, 3, H, W] -> [B, P], not normalised.
        embed_texts: B strings -> [B, P], not normalised.
    """

    name: str
    sha256: str
    resize: str
    embed_images: Callable[[torch.Tensor], torch.Tensor]
    embed_texts: Callable[[list[str]], torch.Tensor]

    def protocol(self) -> dict:
        """The model's part of a protocol."""
        return {"clip_model": self.name, "clip_sha256": self.sha256, "resize": self.resize}


def bundled_clip(folder: str | Path | None = None, device: torch.device | str = "cpu") -> ClipModel:
    """The project's own CLIP.

    Raises:
        FileNotFoundError: there are no weights in `folder`.
        ValueError: the weights are corrupt, truncated or not all there.
    """
    folder = Path(folder or CLIP_FOLDER)
    missing = [part for part in ("image_encoder", "text_encoder", "tokenizer") if not (folder / part).is_dir()]
    if missing:
        raise FileNotFoundError(f"{folder} holds no CLIP: {', '.join(missing)} missing")
    image_encoder = load_component(ImageEncoder, folder / "image_encoder").to(device)
    text_encoder = load_component(CLIPTextModelWithProjection, folder / "text_encoder").to(device)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")

    def embed_images(images: torch.Tensor) -> torch.Tensor:
        if images.shape[2:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"images are {images.shape[3]}x{images.shape[2]}; {BUNDLED} takes {IMAGE_SIZE}x{IMAGE_SIZE}: "
                f"--resize {IMAGE_SIZE} brings them there"
            )
        return image_encoder(to_float(images.to(device))).image_embeds

    def embed_texts(texts: list[str]) -> torch.Tensor:
        return encode_text(tokenizer, text_encoder, texts)[1]

    return ClipModel(BUNDLED, folder_sha256(folder), RESIZE, embed_images, embed_texts)


def open_clip_model(model: str, weights: str | Path | None = None, device: torch.device | str = "cpu") -> ClipModel:
    """One of open_clip's models on a device; the other arguments and errors as in `load_open_clip`."""
    import open_clip

    network, preprocess = load_open_clip(model, weights)
    network.to(device)
    architecture, _, tag = model.partition(":")
    tokenizer = open_clip.get_tokenizer(architecture)

    def embed_images(images: torch.Tensor) -> torch.Tensor:
        return network.encode_image(preprocessed(images.to(device), preprocess))

    def embed_texts(texts: list[str]) -> torch.Tensor:
        return network.encode_text(tokenizer(texts).to(device))

    name = f"open_clip {architecture}:{tag or 'file'}"
    return ClipModel(name, state_dict_sha256(network), OPEN_CLIP_RESIZE, embed_images, embed_texts)


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say which CLIP is asked."""
    parser.add_argument("--clip-model", help="an open_clip architecture:tag (default: the bundled CLIP)")
    parser.add_argument("--clip-weights", help="that model's file, or another folder of the bundled CLIP's parts")


def clip_from_arguments(args: argparse.Namespace, device: torch.device | str) -> ClipModel:
    """The CLIP that --clip-model and --clip-weights name; errors as in `open_clip_model` and `bundled_clip`."""
    if args.clip_model:
        return open_clip_model(args.clip_model, args.clip_weights, device)
    return bundled_clip(args.clip_weights, device)


@torch.no_grad()
def normalized_texts(clip: ClipModel, texts: list[str]) -> torch.Tensor:
    """Embeddings of length 1, float64 [N, P] on the CPU."""
    batches = [clip.embed_texts(texts[i : i + BATCH_SIZE]).cpu() for i in range(0, len(texts), BATCH_SIZE)]
    return F.normalize(torch.cat(batches).double(), dim=1)


@torch.no_grad()
def normalized_images(clip: ClipModel, images: torch.Tensor, progress: bool = True) -> torch.Tensor:
    """Embeddings of length 1 of uint8 [N, 3, H, W], float64 [N, P] on the CPU."""
    batches = []
    with tqdm(total=len(images), desc=clip.name, unit="image", leave=False, disable=not progress) as bar:
        for batch in images.split(BATCH_SIZE):
            batches.append(clip.embed_images(batch).cpu())
            bar.update(len(batch))
    return F.normalize(torch.cat(batches).double(), dim=1)


def clip_scores(clip: ClipModel, images: torch.Tensor, prompts: list[str], progress: bool = True) -> torch.Tensor:
    """100 x cosine of each image with its prompt. Source: Hessel et al., arXiv 2104.08718, unscaled.

    Args:
        clip: the model.
        images: uint8 [N, 3, H, W].
        prompts: N strings.

    Returns:
        float64 [N].

    Raises:
        ValueError: no images, or as many prompts as images is not the case.
    """
    if not prompts or len(prompts) != len(images):
        raise ValueError(
            f"{len(prompts)} prompts for {len(images)} images: one prompt an image is needed, and at least one"
        )
    texts = list(dict.fromkeys(prompts))
    row_of = {text: row for row, text in enumerate(texts)}
    rows = [row_of[prompt] for prompt in prompts]
    return 100 * (normalized_images(clip, images, progress) * normalized_texts(clip, texts)[rows]).sum(1)


def clip_score(clip: ClipModel, images: torch.Tensor, prompts: list[str], progress: bool = True) -> float:
    """The mean of `clip_scores`; arguments and errors as there."""
    return clip_scores(clip, images, prompts, progress).mean().item()


def score_real_images(clip: ClipModel, template: str, data: str | Path | None, n: int | None = None) -> dict:
    """The CLIP score of CIFAR-10's test images with their classes in `template`.

    Args:
        n: the first n images, None for all.
    """
    images = real_images(data, "test")
    images = images.first(min(n or len(images), len(images)))
    prompts = [caption(CLASS_NAMES[label], template) for label in images.class_labels.tolist()]
    score = clip_score(clip, images.images, prompts)
    real = {"real_images": images.protocol["images"], "real_images_sha256": images.protocol["images_sha256"]}
    return {"clip_score_real": score, "real_n": len(images), "template": template} | real | clip.protocol()


def real_score(clip: ClipModel, template: str, data: str | Path | None, n: int) -> dict:
    """The score of real images: measured where there is data, else the one that ships with the bundled CLIP.

    Raises:
        ValueError: there is no data, and no shipped score for this model and template.
    """
    if data or os.environ.get(DATA_VARIABLE):
        return score_real_images(clip, template, data, n)
    shipped = shipped_real_score(clip)
    if shipped["template"] != template:
        raise ValueError(
            f"no score of real images for {clip.name} with {template!r}: pass CIFAR-10 (--data DIR) to measure it"
        )
    return shipped


def shipped_real_score(clip: ClipModel) -> dict:
    """The score of real images that ships with the bundled CLIP.

    Raises:
        ValueError: it is of another model than `clip`.
    """
    shipped = read_json(SHIPPED_REAL_SCORE) if SHIPPED_REAL_SCORE.exists() else {}
    if shipped.get("clip_sha256") != clip.sha256:
        raise ValueError(f"no score of real images for {clip.name}: pass CIFAR-10 (--data DIR) to measure it")
    return shipped


def measure_clip_score(
    images: ImageSet, clip: ClipModel, data: str | Path | None = None, device: torch.device | str = "cpu"
) -> dict:
    """CLIP score of samples whose prompts are known, beside that of real images.

    Returns:
        `clip_score`, the same as a cosine `clip_cosine`, `clip_score_real`, `n`, `real_n`, `intervals` of the score
        where there are two images or more, `protocol`, `samples`.

    Raises:
        ValueError: the images have no prompts, or there is no score of real images.
    """
    if images.prompts is None:
        raise ValueError("the images have no prompts: CLIP score needs a folder or npz file made by eval.generate")
    real = real_score(clip, images.protocol["template"], data, len(images))
    scores = clip_scores(clip, images.images, images.prompts)
    result = {
        "clip_score": scores.mean().item(),
        "clip_cosine": scores.mean().item() / 100,
        "clip_score_real": real["clip_score_real"],
        "n": len(images),
        "real_n": real["real_n"],
    }
    if len(scores) > 1:
        result["intervals"] = {"clip_score": mean_interval(scores)}
    protocol = clip.protocol() | {"template": images.protocol["template"], "scale": "cosine x 100"}
    protocol |= {key: real[key] for key in ("real_images", "real_images_sha256")}
    return result | {"protocol": protocol | measured_with(device), "samples": images.protocol}


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.clip_score", description=__doc__.splitlines()[0])
    add_input_arguments(parser)
    add_clip_arguments(parser)
    args = parser.parse_args(argv)
    device = PartialState().device
    clip = clip_from_arguments(args, device)
    if not (args.data or os.environ.get(DATA_VARIABLE)):
        shipped_real_score(clip)  # before samples are drawn for nothing
    result = measure_repeatedly(
        args, lambda images: measure_clip_score(images, clip, args.data, device), labelled=True
    )
    show_result("eval.clip_score", result, args.json)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
