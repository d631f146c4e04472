"""Measure how well a control checkpoint draws the edges and colours of test images."""

from dataclasses import dataclass
from typing import Any

import torch
from torchvision.utils import make_grid

from eval.extractors.base import Extractor
from eval.extractors.features import FeatureSet
from eval.extractors.statistics import reference_protocol, reference_statistics
from eval.metrics.accuracy import top_k_accuracy
from eval.metrics.agreement import color_error, edge_f1
from eval.metrics.frechet import check_count, feature_statistics, frechet_distance
from eval.protocol import device_description, measured_with, tensor_sha256
from eval.samples.draw import draw_samples
from eval.samples.images import ImageSet
from eval.samples.prompts import plan_of_classes
from eval.samples.settings import CheckpointSettings
from mobilediff.checkpoints import VAE
from mobilediff.downstream.conditions import canny_edges, color_maps
from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.models.autoencoder import reconstruct

COLOR_SIZE = 8
# Of each set of samples: whether edges and colours are given, and the scale of the control.
WAYS = {
    "uncontrolled": (True, True, 0.0),
    "edges": (True, False, 1.0),
    "colors": (False, True, 1.0),
    "edges and colors": (True, True, 1.0),
}


@dataclass
class Conditions:
    """Hold the conditions of images: edges, bool [N, 1, H, W], and colours in [-1, 1], [N, 3, 8, 8]."""

    edges: torch.Tensor
    colors: torch.Tensor

    @classmethod
    def of(cls, images: torch.Tensor) -> "Conditions":
        """Extract them of uint8 images [N, 3, H, W]."""
        return cls(canny_edges(images) > 0, color_maps(images, COLOR_SIZE))

    def agreement(self, images: torch.Tensor) -> dict[str, float]:
        """Compare them with those of other images, uint8 [N, 3, H, W]: `edge_f1` and `color_error`."""
        found = Conditions.of(images)
        return {"edge_f1": edge_f1(found.edges, self.edges), "color_error": color_error(found.colors, self.colors)}


def measure_control(
    pipeline: MobileDiffusionControlPipeline,
    settings: CheckpointSettings,
    real: ImageSet,
    vae: VAE,
    judge: Extractor,
    batch_size: int,
    device: torch.device,
) -> dict:
    """Measure samples of every entry of `WAYS`, of the conditions and classes of real images.

    Args:
        pipeline: the control checkpoint.
        settings: of its sampling; image i is drawn with seed + i.
        real: labelled images; their own agreement once the VAE has encoded and decoded them is the ceiling.
        vae: encodes and decodes them.
        judge: extracts the features of distance and accuracy.
        batch_size: samples drawn at once.
        device: of the extractors.

    Returns:
        `n`; by way `edge_f1`, `color_error`, `class_accuracy` and `frechet_distance_judge`; `ceiling`; `protocol` and
        `samples`, the real images.

    Raises:
        ValueError: too few images.
    """
    statistics = reference_statistics(judge, "train")
    check_count(len(real), len(statistics.mu))
    given, labels = Conditions.of(real.images), real.known_labels()
    result: dict[str, Any] = {"n": len(real)}
    for way, condition in WAYS.items():
        images = draw_controlled(pipeline, settings, given, labels, condition, batch_size)
        features = FeatureSet(ImageSet(images), device).of(judge)
        result[way] = given.agreement(images) | {
            "class_accuracy": top_k_accuracy(features["class_logits"], labels),
            "frechet_distance_judge": frechet_distance(feature_statistics(features[judge.layer]), statistics),
            "samples": settings.protocol(len(images))
            | device_description(pipeline.device)
            | {"images_sha256": tensor_sha256(images)},
        }
    result["ceiling"] = given.agreement(reconstruct(vae, real.images))
    protocol = judge.protocol() | reference_protocol("train", statistics) | measured_with(device)
    return result | {"protocol": protocol, "samples": real.protocol}


def draw_controlled(
    pipeline: MobileDiffusionControlPipeline,
    settings: CheckpointSettings,
    given: Conditions,
    labels: torch.Tensor,
    way: tuple[bool, bool, float],
    batch_size: int,
) -> torch.Tensor:
    """Draw an image of each condition and class.

    Args:
        way: whether edges and colours are given, and the scale of the control.

    Returns:
        uint8 [N, 3, H, W].
    """
    has_edges, has_colors, scale = way
    rows = {}
    if has_edges:
        rows["image"] = given.edges.float()
    if has_colors:
        rows["color_map"] = (given.colors + 1) / 2
    plan, indices = plan_of_classes(labels.tolist(), str(settings.template)), list(range(len(labels)))
    batches = draw_samples(pipeline, settings, plan, indices, batch_size, rows, controlnet_conditioning_scale=scale)
    return torch.cat([drawn for _, drawn in batches])


def picture(pipeline: MobileDiffusionControlPipeline, settings: CheckpointSettings, real: ImageSet) -> torch.Tensor:
    """Draw a row of real images, one of their edges, and one of every entry of `WAYS`, uint8 [3, height, width]."""
    given, labels = Conditions.of(real.images), real.known_labels()
    edges = 255 * given.edges.expand_as(real.images).byte()
    drawn = [draw_controlled(pipeline, settings, given, labels, way, len(real)) for way in WAYS.values()]
    return make_grid(torch.cat([real.images, edges, *drawn]), nrow=len(real), padding=1, pad_value=255)
