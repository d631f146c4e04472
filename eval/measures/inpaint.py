"""Measure repainted test images: kept pixels, error, Frechet distance and class accuracy, beside naive ways."""

from dataclasses import replace

import torch
from torchvision.utils import make_grid

from eval.extractors.base import Extractor
from eval.extractors.features import FeatureSet
from eval.measures.frechet import measure_frechet_distance
from eval.protocol import tensor_sha256
from eval.samples.draw import draw_samples
from eval.samples.images import ImageSet
from eval.samples.prompts import SamplePlan, plan_of_classes
from eval.samples.settings import CheckpointSettings
from eval.samples.store import samples_in_memory
from mobilediff.downstream.inpaint import MobileDiffusionInpaintPipeline, filled
from mobilediff.downstream.masks import MASK_KINDS, draw_masks
from mobilediff.images import to_bytes, to_float
from mobilediff.timing import seconds, summary

COUNT = 500
TIMED_CALLS = 20
GREY = torch.tensor(128, dtype=torch.uint8)  # of a hole in a picture


def mean_colour(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Fill holes with the average colour of what is kept; shapes as in `filled`."""
    kept = 1 - masks
    average = (kept * images).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True)
    return torch.where(masks == 1, average, images)


BASELINES = {"mean_colour": mean_colour, "neighbours": filled}


def measure_inpainting(
    pipeline: MobileDiffusionInpaintPipeline,
    settings: CheckpointSettings,
    images: ImageSet,
    extractor: Extractor,
    batch_size: int = 50,
    device: torch.device | str = "cpu",
) -> dict:
    """Repaint every image under a mask of each kind, by the prompt of its class, and measure the results.

    What lies under the mask is seen by nobody. Image and mask i belong to the seed + i, and the judge measures the
    whole images.

    Args:
        pipeline: of any checkpoint.
        settings: of the sampling.
        images: [N, 3, H, W] with their labels.
        extractor: the judge.
        batch_size: images repainted at once.
        device: of the judge.

    Returns:
        `n`; `image`, the time of one call; `real`, `class_accuracy` and distance of the images themselves; `masks`,
        by kind the `share` of the pixels that is repainted and of `model` and each of `BASELINES` the figures of
        `compared`; `protocol`, `samples`.
    """
    count, size, device = len(images), images.images.shape[-1], torch.device(device)
    plan, floats = plan_of(settings, images), to_float(images.images)
    measured = _judged(images, extractor, device)
    result = {"n": count, "real": _figures(measured, extractor), "masks": {}}
    drawn = []
    for kind in MASK_KINDS:
        masks = masks_of(kind, settings.seed, count, size)
        repainted = repaint(pipeline, settings, plan, images.images, masks, batch_size)
        ways = {"model": repainted} | {name: to_bytes(fill(floats, masks)) for name, fill in BASELINES.items()}
        result["masks"][kind] = {"share": masks.mean().item()} | {
            name: compared(replace(images, images=way), images.images, masks, extractor, device)
            for name, way in ways.items()
        }
        drawn.append(repainted)
    arguments = settings.call_arguments(plan, [0]) | {"image": images.images[:1] / 255, "mask_image": masks[:1]}
    times = [seconds(lambda: pipeline(**arguments), device) for _ in range(TIMED_CALLS + 1)][1:]
    samples = samples_in_memory(torch.cat(drawn), settings, plan, device).protocol
    real = {"real_images": images.protocol["images"], "real_images_sha256": images.protocol["images_sha256"]}
    timing = summary(times)
    timing["images_per_second"] = 1000 / timing["median_ms"]
    return result | {"image": timing, "protocol": measured["protocol"], "samples": samples | real}


def plan_of(settings: CheckpointSettings, images: ImageSet) -> SamplePlan:
    """Plan a sample for each image [N, 3, H, W], by the prompt of its class."""
    return plan_of_classes(images.known_labels().tolist(), str(settings.template))


def masks_of(kind: str, seed: int, count: int, size: int) -> torch.Tensor:
    """Draw masks of a kind, mask i from the seed + i; float32 [count, 1, size, size]."""
    generators = [torch.Generator().manual_seed(seed + index) for index in range(count)]
    return torch.cat([draw_masks(kind, 1, size, generator) for generator in generators])


def repaint(
    pipeline: MobileDiffusionInpaintPipeline,
    settings: CheckpointSettings,
    plan: SamplePlan,
    images: torch.Tensor,
    masks: torch.Tensor,
    batch_size: int,
) -> torch.Tensor:
    """Repaint images, image i from the seed + i.

    Args:
        pipeline: of any checkpoint.
        settings: of the sampling.
        plan: prompt of each image.
        images: uint8 [N, 3, H, W].
        masks: 1 where they are repainted, [N, 1, H, W].
        batch_size: images repainted at once.

    Returns:
        uint8 [N, 3, H, W].
    """
    rows = {"image": images / 255, "mask_image": masks}
    batches = draw_samples(pipeline, settings, plan, list(range(len(images))), batch_size, rows)
    return torch.cat([drawn for _, drawn in batches])


def picture(pipeline: MobileDiffusionInpaintPipeline, settings: CheckpointSettings, images: ImageSet) -> torch.Tensor:
    """Draw a row of images, and for each kind of mask one with holes and one repainted.

    Args:
        pipeline: of any checkpoint.
        settings: of the sampling.
        images: [N, 3, H, W] with their labels.

    Returns:
        uint8 [3, height, width].
    """
    rows, plan, count, size = [images.images], plan_of(settings, images), len(images), images.images.shape[-1]
    for kind in MASK_KINDS:
        masks = masks_of(kind, settings.seed, count, size)
        holes = torch.where(masks == 1, GREY, images.images)
        rows += [holes, repaint(pipeline, settings, plan, images.images, masks, count)]
    return make_grid(torch.cat(rows), nrow=count, padding=1, pad_value=255)


def compared(
    results: ImageSet, originals: torch.Tensor, masks: torch.Tensor, extractor: Extractor, device: torch.device
) -> dict:
    """Compare repainted images with those that they were made of.

    Args:
        results: images [N, 3, H, W] and their labels.
        originals: uint8 [N, 3, H, W].
        masks: 1 where they are repainted, [N, 1, H, W].
        extractor: the judge.
        device: of the judge.

    Returns:
        `kept`, the fraction of the images of which every kept byte is the original's; `error`, the root mean square of
        the differences of repainted bytes; the class accuracy and the distance.
    """
    differences = (results.images.float() - originals.float()).square()
    kept = ((differences * (masks == 0)).sum((1, 2, 3)) == 0).double().mean().item()
    error = ((differences * masks).sum() / (3 * masks.sum())).sqrt().item()
    return {"kept": kept, "error": error} | _figures(_judged(results, extractor, device), extractor)


def _judged(images: ImageSet, extractor: Extractor, device: torch.device) -> dict:
    protocol = images.protocol | {"images_sha256": tensor_sha256(images.images)}
    return measure_frechet_distance(FeatureSet(replace(images, protocol=protocol), device), extractor, resamples=0)


def _figures(measured: dict, extractor: Extractor) -> dict:
    return {key: measured[key] for key in ("class_accuracy", extractor.result_key)}
