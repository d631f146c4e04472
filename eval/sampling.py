"""Samples of a checkpoint: which prompts, which seeds, which settings; one seed an image, so that an image depends on
neither the batch it is drawn in nor the process that draws it."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from eval.protocol import SAMPLING_LIBRARIES, folder_sha256, library_versions
from mobilediff.captions import CLASS_NAMES, caption, load_nouns
from mobilediff.checkpoints import load_pipeline
from mobilediff.pipeline import MobileDiffusionPipeline

PROMPT_KINDS = ("class", "noun")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MAX_IMAGES = 1_000_000


@dataclass(frozen=True)
class SamplingSettings:
    """What decides the pixels of sample `i`, so that sets made under equal settings can be joined.

    Attributes:
        model: name of the checkpoint's folder.
        model_sha256: hash of its weights, configurations and vocabularies.
        seed: image `i` is drawn with a generator of its own, seeded `seed + i`.
        prompts: "class" (class `i % 10`) or "noun" (that class's nouns in turn).
        template: the sentence that class or noun is put into.
        num_inference_steps: steps of the scheduler.
        guidance_scale: of classifier-free guidance; 1 is none.
        nfe: network evaluations an image; a guided step counts as two.
        dtype: "fp32", or "bf16" for autocast.
        versions: of the libraries that draw.
    """

    model: str
    model_sha256: str
    seed: int
    prompts: str
    template: str
    num_inference_steps: int
    guidance_scale: float
    nfe: int
    dtype: str
    versions: dict[str, str]

    def protocol(self, n: int) -> dict:
        """The settings as JSON values, with the number of images."""
        return asdict(self) | {"n": n, "seeds": f"{self.seed}..{self.seed + n - 1}, one an image"}


@dataclass(frozen=True)
class SamplePlan:
    """The prompt and labels of each sample; balanced over the classes, and so is every prefix of ten."""

    prompts: list[str]
    class_labels: list[int]
    noun_ids: list[int] | None


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
    dtype: str = "fp32",
) -> SamplingSettings:
    """Fill in the checkpoint's own defaults.

    Raises:
        ValueError: an unknown kind of prompts or dtype, a negative seed, or steps or guidance that the checkpoint
            was not made for.
    """
    if prompts not in PROMPT_KINDS:
        raise ValueError(f"prompts is {prompts!r}; accepted are {', '.join(PROMPT_KINDS)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; accepted are {', '.join(DTYPES)}")
    if seed < 0:
        raise ValueError(f"seed is {seed}; accepted is 0 or more")
    config = pipeline.config
    steps = config.default_num_inference_steps if num_inference_steps is None else num_inference_steps
    default_guidance = 1.0 if config.guidance_distilled else config.default_guidance_scale
    guidance = default_guidance if guidance_scale is None else guidance_scale
    return SamplingSettings(
        model=Path(folder).resolve().name,
        model_sha256=folder_sha256(folder),
        seed=seed,
        prompts=prompts,
        template=config.class_template,
        num_inference_steps=steps,
        guidance_scale=float(guidance),
        nfe=pipeline.nfe(num_inference_steps, guidance_scale),
        dtype=dtype,
        versions=library_versions(SAMPLING_LIBRARIES),
    )


def plan_samples(n: int, prompts: str, template: str) -> SamplePlan:
    """The first `n` prompts: class `i % 10`; for nouns, the nouns of that class in turn.

    Raises:
        ValueError: `n` is below 1 or over a million.
    """
    if not 1 <= n <= MAX_IMAGES:
        raise ValueError(f"n is {n}; accepted is 1 to {MAX_IMAGES}")
    labels = [index % len(CLASS_NAMES) for index in range(n)]
    if prompts == "class":
        return SamplePlan([caption(CLASS_NAMES[label], template) for label in labels], labels, None)
    nouns = list(load_nouns())
    by_class = {label: [i for i, noun in enumerate(nouns) if load_nouns()[noun] == label] for label in set(labels)}
    rounds = [index // len(CLASS_NAMES) for index in range(n)]
    noun_ids = [by_class[label][turn % len(by_class[label])] for label, turn in zip(labels, rounds, strict=True)]
    return SamplePlan([caption(nouns[noun_id], template) for noun_id in noun_ids], labels, noun_ids)


def draw_samples(
    pipeline: MobileDiffusionPipeline,
    settings: SamplingSettings,
    plan: SamplePlan,
    indices: list[int],
    batch_size: int,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Draw the samples with the given indices.

    Yields:
        A batch's indices and its images, uint8 [B, 3, H, W].

    Raises:
        ValueError: `batch_size` is below 1, or a sample is not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; accepted is 1 or more")
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        autocast = nullcontext()
        if settings.dtype != "fp32":
            autocast = torch.autocast(pipeline.device.type, dtype=DTYPES[settings.dtype])
        with autocast:
            images = pipeline(
                prompt=[plan.prompts[index] for index in batch],
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                generator=[torch.Generator("cpu").manual_seed(settings.seed + index) for index in batch],
                output_type="pt",
            ).images
        finite = torch.isfinite(images).flatten(1).all(1)
        if not finite.all():
            index = batch[int((~finite).nonzero()[0])]
            raise ValueError(f"{settings.model} drew a sample that is not finite, index {index}")
        yield batch, (images.float() * 255).round().to(torch.uint8).cpu()
