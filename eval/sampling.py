"""Samples of a model: which prompts, which seeds, which settings; one seed an image, so that but for rounding an image
depends on neither the batch it is drawn in nor the process that draws it."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

from eval.noun_prompts import noun_counts_sha256, nouns_in_turn
from eval.protocol import SAMPLING_LIBRARIES, folder_sha256, library_versions, seed_range
from mobilediff.captions import CLASS_NAMES, caption, load_nouns
from mobilediff.checkpoints import load_pipeline
from mobilediff.pipeline import MobileDiffusionPipeline

PROMPT_KINDS = ("class", "noun")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MAX_IMAGES = 1_000_000
DEFAULT_TEMPLATE = inspect.signature(MobileDiffusionPipeline.__init__).parameters["class_template"].default


@dataclass(frozen=True)
class SamplePlan:
    """The prompt and labels of each sample; balanced over the classes, and so is every prefix of ten.

    Attributes:
        n: samples.
        prompts, class_labels, noun_ids: of each sample, or None where there are none.
    """

    n: int
    prompts: list[str] | None = None
    class_labels: list[int] | None = None
    noun_ids: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(ABC):
    """What decides the pixels of sample `i`, so that sets made under equal settings can be joined.

    Attributes:
        model: name of the checkpoint's or pipeline's folder, or its name on the hub.
        model_sha256: hash of its weights, configurations and vocabularies; None for one from the hub, which has a
            revision.
        seed: image `i` is drawn with a generator of its own, seeded `seed + i`.
        prompts: "class" (class `i % 10`), "noun" (a noun of that class), or None for a model without prompts.
        template: the sentence that class or noun is put into, or None.
        dtype: "fp32", or "bf16" for autocast.
        compiled: the network under torch.compile, which rounds elsewhere.
        versions: of the libraries that draw.
    """

    model: str
    model_sha256: str | None
    seed: int
    prompts: str | None
    template: str | None
    dtype: str
    compiled: bool
    versions: dict[str, str]

    def __post_init__(self):
        if self.prompts not in (*PROMPT_KINDS, None):
            raise ValueError(f"prompts is {self.prompts!r}; accepted are {', '.join(PROMPT_KINDS)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; accepted are {', '.join(DTYPES)}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; accepted is 0 or more")

    @abstractmethod
    def call_arguments(self, plan: SamplePlan, indices: list[int]) -> dict:
        """What the pipeline is called with for the samples `indices`, generators and output type aside."""

    def identity(self) -> dict:
        """What makes two sets samples of one sequence, as JSON values."""
        return asdict(self) | ({"noun_counts_sha256": noun_counts_sha256()} if self.prompts == "noun" else {})

    def protocol(self, n: int) -> dict:
        """The settings as JSON values, with the number of images."""
        return self.identity() | {"n": n, "seeds": seed_range(self.seed, n)}


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings(SamplingSettings):
    """Settings of one of this project's checkpoints.

    Attributes:
        num_inference_steps: steps of the scheduler.
        scheduler: name of its class in diffusers or this package.
        guidance_scale: of classifier-free guidance; 1 is none.
        guidance_interval: from where to where it applies, as shares of the timesteps.
        nfe: network evaluations an image; a guided step counts as two.
    """

    num_inference_steps: int
    scheduler: str
    guidance_scale: float
    guidance_interval: list[float]
    nfe: int

    def call_arguments(self, plan: SamplePlan, indices: list[int]) -> dict:
        return {
            "prompt": [plan.prompts[index] for index in indices],
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "guidance_interval": self.guidance_interval if self.guidance_scale > 1 else None,
        }


def load_sampler(folder: str | Path, device: torch.device | str = "cpu") -> MobileDiffusionPipeline:
    """A checkpoint in fp32 with its progress bar off; errors as in `mobilediff.checkpoints.load_pipeline`."""
    pipeline = load_pipeline(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def resolve_settings(
    pipeline: MobileDiffusionPipeline,
    folder: str | Path,
    seed: int = 0,
    prompts: str = "class",
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_interval: list[float] | None = None,
    dtype: str = "fp32",
    compiled: bool = False,
) -> CheckpointSettings:
    """Fill in the checkpoint's own defaults; the scheduler is the one that the pipeline has now.

    Raises:
        ValueError: an unknown kind of prompts or dtype, a negative seed, or steps or guidance that the checkpoint
            was not made for.
    """
    config = pipeline.config
    steps = config.default_num_inference_steps if num_inference_steps is None else num_inference_steps
    default_guidance = 1.0 if config.guidance_distilled else config.default_guidance_scale
    guidance = default_guidance if guidance_scale is None else guidance_scale
    default_interval = config.default_guidance_low, config.default_guidance_high
    interval = default_interval if guidance_interval is None else guidance_interval
    return CheckpointSettings(
        model=Path(folder).resolve().name,
        model_sha256=folder_sha256(folder),
        seed=seed,
        prompts=prompts,
        template=config.class_template,
        num_inference_steps=steps,
        scheduler=type(pipeline.scheduler).__name__,
        guidance_scale=float(guidance),
        guidance_interval=[float(bound) for bound in interval],
        nfe=pipeline.nfe(num_inference_steps, guidance_scale, guidance_interval),
        dtype=dtype,
        compiled=compiled,
        versions=library_versions(SAMPLING_LIBRARIES),
    )


def check_sample_count(n: int) -> None:
    """Refuse a number of samples.

    Raises:
        ValueError: `n` is below 1 or over a million.
    """
    if not 1 <= n <= MAX_IMAGES:
        raise ValueError(f"n is {n}; accepted is 1 to {MAX_IMAGES}")


def plan_samples(n: int, prompts: str | None, template: str | None) -> SamplePlan:
    """The first `n` prompts: class `i % 10`; for nouns, those of that class by `nouns_in_turn`; none without prompts.

    Raises:
        ValueError: as in `check_sample_count`.
    """
    check_sample_count(n)
    if prompts is None:
        return SamplePlan(n)
    labels = [index % len(CLASS_NAMES) for index in range(n)]
    if prompts == "class":
        return SamplePlan(n, [caption(CLASS_NAMES[label], template) for label in labels], labels)
    nouns = list(load_nouns())
    rounds = [index // len(CLASS_NAMES) for index in range(n)]
    by_class = {label: nouns_in_turn(label, rounds[-1] + 1) for label in set(labels)}
    noun_ids = [by_class[label][turn] for label, turn in zip(labels, rounds, strict=True)]
    return SamplePlan(n, [caption(nouns[noun_id], template) for noun_id in noun_ids], labels, noun_ids)


def draw_samples(
    pipeline: DiffusionPipeline,
    settings: SamplingSettings,
    plan: SamplePlan,
    indices: list[int],
    batch_size: int,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Draw the samples with the given indices.

    Yields:
        A batch's indices and its images, uint8 [B, 3, H, W].

    Raises:
        ValueError: `batch_size` is below 1, or what the pipeline returns are not RGB images in 0..1, one a prompt.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; accepted is 1 or more")
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        generators = [torch.Generator("cpu").manual_seed(settings.seed + index) for index in batch]
        autocast = nullcontext()
        if settings.dtype != "fp32":
            autocast = torch.autocast(pipeline.device.type, dtype=DTYPES[settings.dtype])
        with autocast:
            output = pipeline(
                **settings.call_arguments(plan, batch),
                # not every pipeline takes a list, and a list of one is the same noise
                generator=generators if len(batch) > 1 else generators[0],
                output_type="np",
            )
        images = _checked(getattr(output, "images", None), batch, settings.model)
        yield batch, torch.from_numpy((images * 255).round().astype(np.uint8).transpose(0, 3, 1, 2).copy())


def _checked(images: np.ndarray | None, batch: list[int], model: str) -> np.ndarray:
    """float32 [B, H, W, 3], or an error that names the model and what it returned."""
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[::3] != (len(batch), 3):
        returned = images.shape if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{model} returned {returned} for {len(batch)} samples; expected RGB images [B, H, W, 3]")
    inside = ((images >= 0) & (images <= 1)).all(axis=(1, 2, 3))  # false for what is not finite
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        low, high = images[row].min(), images[row].max()
        raise ValueError(f"{model} drew a sample with values from {low} to {high}, not 0..1: index {batch[row]}")
    return images.astype(np.float32)
