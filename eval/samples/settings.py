"""Describe a sampler by the settings that decide the pixels of each sample."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from eval.protocol import SAMPLING_LIBRARIES, folder_sha256, library_versions, seed_range
from eval.samples.prompts import PROMPT_KINDS, SamplePlan, noun_counts_sha256
from mobilediff.pipeline import MobileDiffusionPipeline

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(ABC):
    """Hold the settings that decide the pixels of sample `i`.

    Sets of samples with equal settings can be joined.

    Attributes:
        model: name of the checkpoint's or pipeline's folder, or its name on the hub.
        model_sha256: hash of its weights, configurations and vocabularies; None for one from the hub, which has a
            revision.
        seed: image `i` is drawn with a generator of its own, seeded `seed + i`.
        prompts: "class" (class `i % 10`), "noun" (a noun of that class), or None for a model without prompts.
        template: the sentence that class or noun is put into, or None.
        dtype: "fp32", or "bf16" for autocast.
        compiled: whether the network runs under torch.compile, which rounds differently.
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
        """Return the pipeline's arguments for the samples `indices`, without generators and output type."""

    def identity(self) -> dict:
        """Return the values that two sets of one sequence share, as JSON."""
        return asdict(self) | ({"noun_counts_sha256": noun_counts_sha256()} if self.prompts == "noun" else {})

    def protocol(self, n: int) -> dict:
        """Return the settings as JSON values, with the number of images."""
        return self.identity() | {"n": n, "seeds": seed_range(self.seed, n)}


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings(SamplingSettings):
    """Describe the sampling of one of this project's checkpoints.

    Attributes:
        num_inference_steps: steps of the scheduler.
        scheduler: name of its class in diffusers or this package.
        guidance_scale: of classifier-free guidance; 1 is none.
        guidance_interval: ends of the interval where it applies, as fractions of the timesteps.
        nfe: network evaluations an image; a guided step counts as two.
    """

    num_inference_steps: int
    scheduler: str
    guidance_scale: float
    guidance_interval: list[float]
    nfe: int

    def call_arguments(self, plan: SamplePlan, indices: list[int]) -> dict:
        return {
            "prompt": plan.prompts_of(indices),
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "guidance_interval": self.guidance_interval if self.guidance_scale > 1 else None,
        }


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
    """Resolve settings with the checkpoint's own defaults and the pipeline's present scheduler.

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
