"""Noise and what a few-step student makes of it: the targets of a one-step student's reconstruction loss."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mobilediff.files import atomic_path
from mobilediff.training.generator import LatentData, noise_scheduler, trailing_timesteps
from mobilediff.training.losses import alpha_sigma, ddim_step
from mobilediff.training.trainer import Trainer, derived_seed

BATCH_SIZE = 250


@dataclass
class Pairs:
    """Noise, the few-step student's sample from it, and its caption's row: [N, C, H, W] twice and [N]."""

    noise: torch.Tensor
    latents: torch.Tensor
    rows: torch.Tensor


def noise_at(noise: torch.Tensor, interval: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The noise to put on a pair's sample: its own at the first timestep, fresh at the others.

    At pure noise it is the noise that decides the sample. Later the sampler draws it anew; a generator that had seen
    the pair's own there too would read the sample out of it.

    Args:
        noise: of the pairs, [B, C, H, W].
        interval: place of each one's timestep, 0 for the first, [B].
    """
    fresh = torch.empty_like(noise).normal_(generator=generator)
    return torch.where((interval == 0)[:, None, None, None], noise, fresh)


@torch.no_grad()
def sample_pairs(unet: nn.Module, num_steps: int, count: int, data: LatentData, trainer: Trainer) -> Pairs:
    """Draw the pairs with a distilled student, or read them from an earlier start of this run.

    Args:
        unet: of the student.
        num_steps: its DDIM steps.
        count: pairs.
        data: the captions of whose images the samples are asked for.
        trainer: its options say how captions are drawn; its run folder keeps the pairs.
    """
    options = trainer.options
    file = Path(options.output) / "pairs.safetensors"
    if not file.is_file():
        generator = torch.Generator(device=trainer.device).manual_seed(derived_seed(options.seed, "pairs"))
        alphas_cumprod = noise_scheduler().alphas_cumprod.to(trainer.device)
        grid = trailing_timesteps(num_steps, trainer.device)
        parts = []
        for start in range(0, count, BATCH_SIZE):
            size = min(BATCH_SIZE, count - start)
            images = torch.arange(start, start + size, device=trainer.device) % len(data.labels)
            rows = data.conditioning.bank.draw(
                data.labels[images],
                data.noun_ids[images],
                generator,
                options.class_probability,
                phrasing_probability=options.phrasing_probability,
            )
            noise = torch.randn(size, *data.latents.shape[2:], generator=generator, device=trainer.device)
            latents = noise.contiguous(memory_format=torch.channels_last)
            for t, next_t in zip(grid[:-1], grid[1:], strict=True):
                with trainer.autocast():
                    v = unet(latents, t.expand(size), **data.conditioning(rows)).sample.float()
                here, there = alpha_sigma(alphas_cumprod, t[None]), alpha_sigma(alphas_cumprod, next_t[None])
                latents = ddim_step(latents, v, *here, *there)
            parts.append((noise.half(), latents.contiguous().half(), rows))
        noise, latents, rows = (torch.cat(column) for column in zip(*parts, strict=True))
        with atomic_path(file) as temporary:
            save_file({"noise": noise, "latents": latents, "rows": rows}, temporary)
    return Pairs(**{name: tensor.to(trainer.device) for name, tensor in load_file(file).items()})
