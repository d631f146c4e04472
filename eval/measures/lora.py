"""Measure what a LoRA does to a model's pictures, against held-out images of its style."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision.utils import make_grid

from eval.extractors.base import Extractor, extract_features
from eval.metrics.accuracy import top_k_accuracy
from eval.metrics.kernel import kernel_distance
from eval.protocol import device_description, measured_with, tensor_sha256
from eval.samples.draw import draw_samples
from eval.samples.loras import with_loras
from eval.samples.prompts import plan_of_classes
from eval.samples.settings import CheckpointSettings, resolve_settings
from mobilediff.captions import CLASS_NAMES
from mobilediff.data import ImageDataset
from mobilediff.downstream.styles import STYLES
from mobilediff.pipeline import MobileDiffusionPipeline

SUBSETS, SUBSET_SIZE = 100, 1000


@dataclass
class HeldOut:
    """Hold images of the style that no LoRA was trained on.

    Attributes:
        name: of the images.
        dataset: images and labels; the pictures are drawn of these labels in turn.
        style: the filter of `STYLES` that made them; None where none did.
    """

    name: str
    dataset: ImageDataset
    style: str | None


def draw_labels(
    pipeline: MobileDiffusionPipeline, settings: CheckpointSettings, labels: torch.Tensor, batch_size: int
) -> torch.Tensor:
    """Draw a picture of each class, from the seed of its row: uint8 [N, 3, H, W]."""
    plan, rows = plan_of_classes(labels.tolist(), str(settings.template)), list(range(len(labels)))
    return torch.cat([images for _, images in draw_samples(pipeline, settings, plan, rows, batch_size)])


def picture(model: str, lora: str) -> torch.Tensor:
    """Draw a row of all classes without the LoRA and one with it, uint8 [3, height, width]; arguments as below."""
    labels = torch.arange(len(CLASS_NAMES))
    pipelines = with_loras(model, []), with_loras(model, [lora])
    rows = [draw_labels(one, resolve_settings(one, model), labels, len(labels)) for one in pipelines]
    return make_grid(torch.cat(rows), nrow=len(labels), padding=1, pad_value=255)


def measure_lora(
    model: str, lora: str, held_out: HeldOut, judge: Extractor, n: int, batch_size: int, together: str | None, device
) -> dict:
    """Measure pictures of the same seeds and prompts without the LoRA, with it, and with another one beside it.

    Args:
        model: folder of the checkpoint.
        lora: file or folder.
        held_out: images of the style.
        judge: of the distance, a kernel distance of its features, and of the class accuracy.
        n: pictures of each.
        batch_size: pictures drawn at once.
        together: file or folder of the other LoRA; None for none.
        device: of the judge.

    Returns:
        The figures of `plain`, `lora`, with `together` those of both, and for a style of a filter those of the plain
        pictures under it, `filtered`; `lora_bytes`, `protocol`, `samples`.
    """
    pipelines = {"plain": with_loras(model, []), "lora": with_loras(model, [lora])}
    if together is not None:
        pipelines["together"] = with_loras(model, [lora, together])
    labels = held_out.dataset.labels[torch.arange(n) % len(held_out.dataset)]
    settings = resolve_settings(pipelines["plain"], model)
    pictures = {name: draw_labels(pipeline, settings, labels, batch_size) for name, pipeline in pipelines.items()}
    if held_out.style is not None:
        pictures["filtered"] = STYLES[held_out.style](pictures["plain"])
    real = extract_features(judge, held_out.dataset.images, (judge.layer,), device=device)[judge.layer]
    result: dict = {"n": n}
    for name, images in pictures.items():
        features = extract_features(judge, images, (judge.layer, "class_logits"), device=device)
        size = min(SUBSET_SIZE, len(real), n)
        distance = kernel_distance(real, features[judge.layer], subsets=SUBSETS, subset_size=size)
        result[name] = {
            "kernel_distance": distance["kernel_distance_mean"],
            "class_accuracy": top_k_accuracy(features["class_logits"], labels),
        }
        if "filtered" in pictures:
            error = (images.float() - pictures["filtered"].float()).abs().mean() / 255
            result[name]["pair_error"] = float(error)
    path = Path(lora)
    result["lora_bytes"] = sum(
        file.stat().st_size for file in ([path] if path.is_file() else path.glob("*.safetensors"))
    )
    result["protocol"] = judge.protocol() | measured_with(device)
    result["protocol"] |= {
        "reference": held_out.name,
        "reference_n": len(held_out.dataset),
        "reference_sha256": tensor_sha256(held_out.dataset.images),
    }
    result["samples"] = settings.protocol(n) | device_description(pipelines["lora"].device)
    result["samples"] |= {
        "images_sha256": tensor_sha256(pictures["lora"]),
        "lora": lora,
        "prompts": "class, of the reference's labels in turn",
    }
    return result
