"""Draw latents from few-step students, and decode them: a small VAE's training data beside the images."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from mobilediff.captions import CaptionBank
from mobilediff.data import ImageDataset
from mobilediff.images import to_bytes
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.training.data.captioned import cached_tensors, captioned_batches
from mobilediff.training.engine.trainer import derived_seed

BATCH_SIZE = 250


@dataclass
class Decoded:
    """Hold latents and the full decoder's images of them.

    Attributes:
        latents: normalised, float16 [N, C, h, w].
        images: uint8 [N, 3, H, W].
    """

    latents: torch.Tensor
    images: torch.Tensor


@torch.no_grad()
def synthetic_latents(
    pipelines: list[MobileDiffusionPipeline],
    dataset: ImageDataset,
    file: Path,
    *,
    num_latents: int,
    class_probability: float,
    seed: int,
    autocast: Callable[[], AbstractContextManager],
) -> Decoded:
    """Draw latents for the data set's captions and decode them, or read those drawn before.

    Args:
        pipelines: few-step students of one VAE, on their device.
        dataset: the images whose captions are drawn.
        file: where the tensors are kept.
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
        latents = []
        for pipeline in pipelines:
            sizes = [len(part) for part in torch.arange(num_latents).split(BATCH_SIZE)]
            for _, caption_ids in captioned_batches(
                bank, dataset.labels, dataset.noun_ids, sizes, generator, class_probability
            ):
                prompts = [bank.texts[caption_id] for caption_id in caption_ids.tolist()]
                with autocast():
                    drawn = pipeline(prompt=prompts, generator=generator, output_type="latent").images
                latents.append(drawn.half().cpu())
        latents = torch.cat(latents).unflatten(0, (len(pipelines), -1)).transpose(0, 1).flatten(0, 1)
        images = []
        for batch in latents.split(BATCH_SIZE):
            with autocast():
                images.append(to_bytes(pipelines[0].decode_latents(batch.to(device).float())).cpu())
        return {"latents": latents, "images": torch.cat(images)}

    return Decoded(**{name: tensor.to(device) for name, tensor in cached_tensors(file, draw).items()})
