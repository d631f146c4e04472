"""Draw latents from students, and decode them: a small VAE's training data beside the images."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from mobilediff.captions import CaptionBank
from mobilediff.data import ImageDataset
from mobilediff.images import resize_images, to_bytes
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.data.captioned import cached_tensors, captioned_batches
from mobilediff.training.engine.trainer import derived_seed

BATCH_SIZE = 250


@dataclass
class Decoded:
    """Hold latents and images of them.

    Attributes:
        latents: normalised, float16 [N, C, h, w].
        images: uint8 [N, 3, H, W], by the decoder of the latents' own pipeline.
    """

    latents: torch.Tensor
    images: torch.Tensor


@torch.no_grad()
def synthetic_latents(
    pipelines: list[MobileDiffusionPipeline],
    dataset: ImageDataset,
    file: Path,
    *,
    size: int,
    num_latents: int,
    class_probability: float,
    seed: int,
    autocast: Callable[[], AbstractContextManager],
) -> Decoded:
    """Draw latents for the data set's captions and decode them, or read those drawn before.

    Args:
        pipelines: students of one kind of latents, each with a decoder of its own, on their device.
        dataset: the images whose captions are drawn.
        file: where the tensors are kept.
        size: of the images, which are brought to it by Lanczos.
        num_latents: of each student; the students take turns in the result.
        class_probability: fraction of the captions that name the class instead of the noun.
        seed: of captions and noise.
        autocast: makes the context of the forward passes.

    Returns:
        The latents and their images on the pipelines' device.
    """
    bank, device = CaptionBank(), pipelines[0].device

    def draw() -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(derived_seed(seed, "synthetic"))
        drawn = {"latents": [], "images": []}
        for pipeline in pipelines:
            sizes = [len(part) for part in torch.arange(num_latents).split(BATCH_SIZE)]
            for _, caption_ids in captioned_batches(
                bank, dataset.labels, dataset.noun_ids, sizes, generator, class_probability
            ):
                prompts = [bank.texts[caption_id] for caption_id in caption_ids.tolist()]
                with autocast():
                    latents = pipeline(prompt=prompts, generator=generator, output_type="latent").images.half()
                    images = to_bytes(pipeline.decode_latents(latents.float()))
                drawn["latents"].append(latents.cpu())
                drawn["images"].append(resize_images(images.cpu(), size))
        turns = len(pipelines), -1
        return {
            name: torch.cat(parts).unflatten(0, turns).transpose(0, 1).flatten(0, 1) for name, parts in drawn.items()
        }

    return Decoded(**{name: tensor.to(device) for name, tensor in cached_tensors(file, draw).items()})
