"""Draw (noisy latent at t, final sample) pairs from a few-step student: targets of the one-step student."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch

from mobilediff.diffusion import alpha_sigma, ddim_step, diffuse, trailing_timesteps
from mobilediff.training.data.captioned import cached_tensors, captioned_batches
from mobilediff.training.data.conditioning import ConditionedNetwork
from mobilediff.training.data.latents import LatentData, content_hash
from mobilediff.training.engine.trainer import derived_seed


@dataclass(frozen=True)
class PairSettings:
    """Hold the settings that pairs depend on, beside student, captions and images.

    Attributes:
        student_steps: DDIM steps of the student, a multiple of `num_intervals`.
        num_pairs: pairs to draw.
        num_intervals: timesteps that the one-step student is trained at.
        first_timestep_probability: fraction of the pairs from pure noise; the others are spread evenly.
        class_probability, phrasing_probability: of their captions, as in `CaptionBank.draw`.
        batch_size: pairs drawn at once.
        dtype: of the student's forward pass.
    """

    student_steps: int
    num_pairs: int
    num_intervals: int
    first_timestep_probability: float
    class_probability: float
    phrasing_probability: float
    batch_size: int
    dtype: str


@dataclass
class Pairs:
    """Hold pairs of noisy latents and the samples that they become, with captions.

    Attributes:
        noisy: z_t, float16 [N, C, H, W]: pure noise at the first timestep, later a training image's noised latents.
        latents: the few-step student's samples, by its remaining steps from `noisy`, float16 [N, C, H, W].
        caption_ids: rows of the `CaptionBank`'s texts, int64 [N].
        interval: place of each timestep among those that the generator is trained at, 0 for the first, int64 [N].
    """

    noisy: torch.Tensor
    latents: torch.Tensor
    caption_ids: torch.Tensor
    interval: torch.Tensor

    def __getitem__(self, pair_ids: torch.Tensor) -> "Pairs":
        """Select the pairs of ids, int64 [B]."""
        return Pairs(self.noisy[pair_ids], self.latents[pair_ids], self.caption_ids[pair_ids], self.interval[pair_ids])


def draw_intervals(count: int, num_intervals: int, first_probability: float) -> torch.Tensor:
    """Spread `count` pairs: a fraction at the first timestep, the rest evenly over all, int64 [count]."""
    even = torch.arange(count) % num_intervals
    return torch.where(torch.arange(count) < round(first_probability * count), 0, even)


def batch_sizes(intervals: torch.Tensor, largest: int) -> list[tuple[int, int]]:
    """Split pairs of intervals [N] into batches of one interval each: (interval, pairs) of each batch."""
    return [
        (interval, min(largest, count - start))
        for interval, count in enumerate(intervals.bincount().tolist())
        for start in range(0, count, largest)
    ]


@torch.no_grad()
def sample_pairs(student: ConditionedNetwork, data: LatentData, settings: PairSettings, folder: Path) -> Pairs:
    """Draw pairs with a distilled student, or read those drawn before.

    The file's name is the hash of everything that the pairs depend on: it can't be stale, and runs share it.

    Args:
        student: predicts v; distilled for `settings.student_steps` DDIM steps.
        data: the images, and their captions.
        settings: of the pairs.
        folder: of drawn pairs.

    Returns:
        The pairs on the data's device.
    """

    def draw() -> dict[str, torch.Tensor]:
        generator = torch.Generator(device=data.device).manual_seed(derived_seed(0, "pairs"))
        spread = draw_intervals(settings.num_pairs, settings.num_intervals, settings.first_timestep_probability)
        intervals, sizes = zip(*batch_sizes(spread, settings.batch_size), strict=True)
        captioned = captioned_batches(
            data.conditioning.bank,
            data.labels,
            data.noun_ids,
            sizes,
            generator,
            settings.class_probability,
            settings.phrasing_probability,
        )
        parts = []
        for interval, (images, caption_ids) in zip(intervals, captioned, strict=True):
            timesteps = remaining_timesteps(interval, settings.student_steps, settings.num_intervals).to(data.device)
            noisy = start_of_trajectory(data.latents, images, timesteps[0], generator, from_noise=interval == 0)
            latents = ddim_trajectory_end(student, noisy, timesteps, caption_ids)
            parts.append((noisy.half(), latents.half(), caption_ids, torch.full_like(caption_ids, interval)))
        return dict(
            zip(("noisy", "latents", "caption_ids", "interval"), map(torch.cat, zip(*parts, strict=True)), strict=True)
        )

    encoded = data.conditioning.hidden_states, data.conditioning.pooled, data.latents
    name = content_hash((*student.state_dict().values(), *encoded), [asdict(settings)])
    tensors = {
        key: value.to(data.device) for key, value in cached_tensors(folder / f"{name}.safetensors", draw).items()
    }
    return Pairs(**tensors)


def remaining_timesteps(interval: int, student_steps: int, num_intervals: int) -> torch.Tensor:
    """List the student's timesteps from the `interval`-th trained one on, then -1.

    Args:
        interval: place among the trained timesteps, 0 for the first.
        student_steps: steps of the student.
        num_intervals: timesteps that the one-step student is trained at.

    Returns:
        int64 [S + 1] for S remaining steps; -1 is the clean end.
    """
    return trailing_timesteps(student_steps, torch.device("cpu"))[interval * student_steps // num_intervals :]


def start_of_trajectory(
    latents: torch.Tensor, images: torch.Tensor, timestep: torch.Tensor, generator: torch.Generator, from_noise: bool
) -> torch.Tensor:
    """Draw the noisy latents that trajectories start from.

    Args:
        latents: of all images, plain and mirrored, [2, N, C, H, W].
        images: indices of those to start from, each mirrored with probability one half, int64 [B].
        timestep: where they start, a scalar.
        generator: of mirroring and noise.
        from_noise: whether the start is pure noise instead of noised images.

    Returns:
        float32 [B, C, H, W].
    """
    mirrored = torch.randint(0, 2, images.shape, generator=generator, device=latents.device)
    clean = latents[mirrored, images].float()
    if from_noise:
        return torch.empty_like(clean).normal_(generator=generator)
    return diffuse(clean, timestep.expand(len(images)), generator).noisy


def ddim_trajectory_end(
    student: ConditionedNetwork, noisy: torch.Tensor, timesteps: torch.Tensor, caption_ids: torch.Tensor
) -> torch.Tensor:
    """Follow the student's DDIM steps to the last timestep.

    Args:
        student: predicts v.
        noisy: latents at the first timestep, [B, C, H, W].
        timesteps: of the steps, in turn, and where the last one ends, int64 [S + 1].
        caption_ids: [B].

    Returns:
        [B, C, H, W].
    """
    latents = noisy.contiguous(memory_format=torch.channels_last)
    for t, next_t in pairwise(timesteps):
        v = student(latents, t.expand(len(noisy)), caption_ids)
        latents = ddim_step(latents, v, *alpha_sigma(t[None]), *alpha_sigma(next_t[None]))
    return latents
