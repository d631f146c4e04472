"""Measure the CLIP score of images with their prompts, beside that of real images."""

from pathlib import Path

import torch

from eval import WEIGHTS
from eval.extractors.clip import ClipModel, normalized_images, normalized_texts
from eval.metrics.bootstrap import mean_interval
from eval.protocol import measured_with
from eval.samples.images import ImageSet, real_images
from mobilediff.captions import CLASS_NAMES, caption
from mobilediff.data import data_source
from mobilediff.files import read_json

SHIPPED_REAL_SCORE = WEIGHTS / "reference" / "clip_score.json"


def clip_scores(clip: ClipModel, images: torch.Tensor, prompts: list[str], progress: bool = True) -> torch.Tensor:
    """Compute 100 x cosine of each image with its prompt.

    Source: Hessel et al., arXiv 2104.08718, without their rescaling.

    Args:
        clip: the model.
        images: uint8 [N, 3, H, W].
        prompts: N strings.
        progress: show a bar.

    Returns:
        float64 [N].

    Raises:
        ValueError: no images, or more or fewer prompts than images.
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
    """Average `clip_scores` over images [N, 3, H, W]; arguments and errors as there."""
    return clip_scores(clip, images, prompts, progress).mean().item()


def score_real_images(clip: ClipModel, template: str, data: str | Path | None, n: int | None = None) -> dict:
    """Score CIFAR-10's test images with their classes in `template`.

    Args:
        n: the first n images, None for all.
    """
    images = real_images(data, "test")
    images = images.first(min(n or len(images), len(images)))
    prompts = [caption(CLASS_NAMES[label], template) for label in images.known_labels().tolist()]
    score = clip_score(clip, images.images, prompts)
    real = {"real_images": images.protocol["images"], "real_images_sha256": images.protocol["images_sha256"]}
    return {"clip_score_real": score, "real_n": len(images), "template": template} | real | clip.protocol()


def real_score(clip: ClipModel, template: str, data: str | Path | None, n: int) -> dict:
    """Measure the score of real images where there is data, else read the shipped one.

    Raises:
        ValueError: there is no data, and no shipped score for this model and template.
    """
    if data_source(data):
        return score_real_images(clip, template, data, n)
    return shipped_real_score(clip, template)


def shipped_real_score(clip: ClipModel, template: str | None = None) -> dict:
    """Read the score of real images shipped with the bundled CLIP.

    Raises:
        ValueError: it is of another model than `clip`, or of another template than one that is given.
    """
    shipped = read_json(SHIPPED_REAL_SCORE) if SHIPPED_REAL_SCORE.exists() else {}
    if shipped.get("clip_sha256") != clip.sha256:
        raise ValueError(f"no score of real images for {clip.name}: pass CIFAR-10 (--data DIR) to measure it")
    if template is not None and shipped["template"] != template:
        raise ValueError(
            f"no score of real images for {clip.name} with {template!r}: pass CIFAR-10 (--data DIR) to measure it"
        )
    return shipped


def measure_clip_score(
    images: ImageSet, clip: ClipModel, data: str | Path | None = None, device: torch.device | str = "cpu"
) -> dict:
    """Measure the CLIP score of samples with known prompts, beside that of real images.

    Returns:
        `clip_score`, the same as a cosine `clip_cosine`, `clip_score_real`, `n`, `real_n`, `intervals` of the score
        where there are two images or more, `protocol`, `samples`.

    Raises:
        ValueError: the images have no prompts or no template, or there is no score of real images.
    """
    check_prompted(images)
    real = real_score(clip, images.protocol["template"], data, len(images))
    scores = clip_scores(clip, images.images, images.prompts or [])
    return clip_score_result(images, clip, scores, real, device)


def check_prompted(images: ImageSet) -> None:
    """Refuse images without prompts.

    Raises:
        ValueError: they have none, or no template.
    """
    if images.prompts is None:
        raise ValueError("the images have no prompts: CLIP score needs a folder or npz file made by eval.generate")
    if "template" not in images.protocol:
        raise ValueError(
            "the images have prompts, but no protocol says the template that their nouns were put into: CLIP score "
            "needs a folder or npz file made by eval.generate"
        )


def clip_score_result(
    images: ImageSet, clip: ClipModel, scores: torch.Tensor, real: dict, device: torch.device | str = "cpu"
) -> dict:
    """Average `clip_scores` of images, float64 [N], as `measure_clip_score` does; `real` is from `real_score`."""
    result = {
        "clip_score": scores.mean().item(),
        "clip_cosine": scores.mean().item() / 100,
        "clip_score_real": real["clip_score_real"],
        "n": len(images),
        "real_n": real["real_n"],
    }
    if len(scores) > 1:
        result["intervals"] = {"clip_score": mean_interval(scores)}
    protocol = clip.protocol(images.images) | {"template": images.protocol["template"], "scale": "cosine x 100"}
    protocol |= {key: real[key] for key in ("real_images", "real_images_sha256")}
    return result | {"protocol": protocol | measured_with(device), "samples": images.protocol}
