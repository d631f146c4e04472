"""Where a few-step student's sampling stands at a timestep, and where it ends: targets of a one-step student."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mobilediff.diffusion import alpha_sigma, ddim_step, diffuse, trailing_timesteps
from mobilediff.files import atomic_path
from mobilediff.training.data.conditioning import velocities
from mobilediff.training.data.latents import LatentData, content_hash
from mobilediff.training.engine.trainer import Trainer, derived_seed

# Options that the pairs depend on, beside the student, the captions and the images.
OF_PAIRS = (
    "student_steps",
    "num_pairs",
    "pairs_seed",
    "num_intervals",
    "first_timestep_probability",
    "class_probability",
    "phrasing_probability",
    "sample_batch_size",
    "dtype",
)


@dataclass
class Pairs:
    """Noisy latents, the sample that they become, and its caption.

    Attributes:
        noisy: z_t, [N, C, H, W]: pure noise at the first timestep, later a training image's latents with noise on.
        latents: what the few-step student's remaining steps make of them, [N, C, H, W].
        caption_ids: rows of the `CaptionBank`'s texts, [N].
        interval: place of each one's timestep among those that the generator is trained at, 0 for the first, [N].
    """

    noisy: torch.Tensor
    latents: torch.Tensor
    caption_ids: torch.Tensor
    interval: torch.Tensor


def draw_intervals(count: int, num_intervals: int, first_probability: float) -> torch.Tensor:
    """How `count` pairs are spread: a fraction at the first timestep, the rest evenly over all, int64 [count]."""
    even = torch.arange(count) % num_intervals
    return torch.where(torch.arange(count) < round(first_probability * count), 0, even)


@torch.no_grad()
def sample_pairs(unet: nn.Module, data: LatentData, trainer: Trainer) -> Pairs:
    """Draw the pairs with a distilled student, or read those that a run has drawn before.

    The file's name is the hash of all that the pairs depend on, so that it can't be stale and runs share it.

    Args:
        unet: of the student, whose DDIM steps are `student_steps`.
        data: the images, and their captions.
        trainer: its options are those of `OneStepOptions`.
    """
    options, conditioning = trainer.options, data.conditioning
    tensors = (*unet.state_dict().values(), conditioning.hidden_states, conditioning.pooled, data.latents)
    values = [getattr(options, name) for name in OF_PAIRS]
    file = Path(options.pair_cache) / f"{content_hash(tensors, values)}.safetensors"
    if not file.is_file():
        generator = torch.Generator(device=trainer.device).manual_seed(derived_seed(options.pairs_seed, "pairs"))
        intervals = draw_intervals(options.num_pairs, options.num_intervals, options.first_timestep_probability)
        parts, start, student = [], 0, trainer.compiled(unet)
        for interval, size in batch_sizes(intervals, options.sample_batch_size):
            images = torch.arange(start, start + size, device=trainer.device) % len(data.labels)
            caption_ids = data.conditioning.bank.draw(
                data.labels[images],
                data.noun_ids[images],
                generator,
                options.class_probability,
                phrasing_probability=options.phrasing_probability,
            )
            noisy, latents = ddim_trajectory_end(student, interval, images, caption_ids, data, trainer, generator)
            parts.append((noisy.half(), latents.half(), caption_ids, torch.full_like(caption_ids, interval)))
            start += size
        noisy, latents, caption_ids, interval = (torch.cat(column).contiguous() for column in zip(*parts, strict=True))
        with atomic_path(file) as temporary:
            save_file({"noisy": noisy, "latents": latents, "rows": caption_ids, "interval": interval}, temporary)
    tensors = {name: tensor.to(trainer.device) for name, tensor in load_file(file).items()}
    return Pairs(tensors["noisy"], tensors["latents"], tensors["rows"], tensors["interval"])


def batch_sizes(intervals: torch.Tensor, largest: int) -> list[tuple[int, int]]:
    """(interval, pairs) of each batch."""
    return [
        (interval, min(largest, count - start))
        for interval, count in enumerate(intervals.bincount().tolist())
        for start in range(0, count, largest)
    ]


def ddim_trajectory_end(
    unet: nn.Module,
    interval: int,
    images: torch.Tensor,
    caption_ids: torch.Tensor,
    data: LatentData,
    trainer: Trainer,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy latents at a timestep, and what the student's remaining steps make of them."""
    options, count = trainer.options, len(images)
    first = interval * options.student_steps // options.num_intervals
    timesteps = trailing_timesteps(options.student_steps, trainer.device)[first:]
    mirrored = torch.randint(0, 2, (count,), generator=generator, device=trainer.device)
    clean = data.latents[mirrored, images].float()
    if interval == 0:
        noisy = torch.empty_like(clean).normal_(generator=generator)
    else:
        noisy = diffuse(clean, timesteps[:1].expand(count), generator).noisy
    latents = noisy.contiguous(memory_format=torch.channels_last)
    for t, next_t in pairwise(timesteps):
        v, _ = velocities(unet, data.conditioning, trainer, latents, t.expand(count), caption_ids)
        here, there = alpha_sigma(t[None]), alpha_sigma(next_t[None])
        latents = ddim_step(latents, v, *here, *there)
    return noisy, latents
