"""Describe and load the samplers of exported folders, which run without PyTorch's networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from eval.protocol import SAMPLING_LIBRARIES, folder_sha256, library_versions
from eval.samples.prompts import SamplePlan
from eval.samples.settings import SamplingSettings
from mobilediff.ondevice.exported import ExportedPipeline
from mobilediff.ondevice.formats import load_format
from mobilediff.ondevice.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class ExportedSettings(SamplingSettings):
    """Describe the sampling of an exported folder.

    Attributes:
        checkpoint, checkpoint_sha256: name and hash of the checkpoint that was exported.
        format, precision: of the graphs.
        files: SHA-256 of each file by its path.
        graph_batch_size: images of a call of the graphs.
        num_inference_steps, nfe: steps and network evaluations an image.
    """

    checkpoint: str
    checkpoint_sha256: str
    format: str
    precision: str
    files: dict[str, str]
    graph_batch_size: int
    num_inference_steps: int
    nfe: int

    def call_arguments(self, plan: SamplePlan, indices: list[int]) -> dict:
        return {"prompt": plan.prompts_of(indices)}


def check_no_sampling_options(folder: str | Path, options: Mapping[str, object]) -> None:
    """Refuse options of a checkpoint's sampling, which an export has folded into its graphs.

    Args:
        folder: that was exported.
        options: values by their name on the command line; None or False where not given.

    Raises:
        ValueError: one is given; names it.
    """
    for name, value in options.items():
        if value is not None and value is not False:
            raise ValueError(f"{name} is an option of a checkpoint; {folder} is an export, whose graphs fix it")


def load_exported_sampler(
    folder: str | Path, seed: int = 0, prompts: str = "class"
) -> tuple[ExportedPipeline, ExportedSettings]:
    """Load an exported folder with PyTorch's number of threads, and resolve its settings.

    Raises:
        FileNotFoundError, ValueError: as in `read_manifest`, `load_format` and `SamplingSettings`, before any work.
    """
    manifest = read_manifest(folder)
    runtime = load_format(manifest.format).RUNTIME
    settings = ExportedSettings(
        model=Path(folder).resolve().name,
        model_sha256=folder_sha256(folder),
        seed=seed,
        prompts=prompts,
        template=manifest.nouns.template,
        dtype="fp32",
        compiled=False,
        versions=library_versions((*SAMPLING_LIBRARIES, runtime)),
        checkpoint=manifest.model,
        checkpoint_sha256=manifest.model_sha256,
        format=manifest.format,
        precision=manifest.precision,
        files={file.path: file.sha256 for file in manifest.files},
        graph_batch_size=manifest.batch_size,
        num_inference_steps=manifest.num_inference_steps,
        nfe=manifest.num_inference_steps,
    )
    return ExportedPipeline(Path(folder), manifest, torch.get_num_threads()), settings
