"""Draw on the GPU that a Space with ZeroGPU lends for one call; nowhere else has this file an effect.

The package `spaces` of such a Space runs a function in a forked process, with the GPU and with what can be pickled.
All else runs in the app's own process, which has no GPU there.
"""

import importlib
import importlib.util
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from diffusers import DiffusionPipeline

from eval.samples.draw import draw
from eval.samples.pipelines import load_sampler

P = ParamSpec("P")
R = TypeVar("R")
DEVICE = "cuda"


def lend_gpu(task: Callable[P, R]) -> Callable[P, R]:
    """Return the task run on a lent GPU, on a Space with ZeroGPU; elsewhere the task itself."""
    if importlib.util.find_spec("spaces") is None:
        return task
    return importlib.import_module("spaces").GPU(task)


@cache
def _loaded(folder: Path) -> DiffusionPipeline:
    """Load a checkpoint in the process with the GPU, and warm it up with one image."""
    torch.set_num_threads(1)  # the threads that OpenMP knows of stayed behind in the app's process
    pipeline = load_sampler(folder, torch.device(DEVICE))
    pipeline(class_labels=0, generator=torch.Generator().manual_seed(0))
    return pipeline


def draw_timed(folder: Path, seeds: list[int], options: dict) -> tuple[torch.Tensor, float, list[torch.Tensor]]:
    """Draw one image a seed with the checkpoint of a folder; `options` as of `eval.samples.draw.draw`.

    Returns:
        Images, uint8 [N, 3, H, W]; milliseconds of the call; the latents after each step, [N, C, h, w].
    """
    pipeline, latents = _loaded(folder), []
    options = {name: value.to(DEVICE) if torch.is_tensor(value) else value for name, value in options.items()}

    def after_step(_pipeline, _step, _timestep, tensors: dict) -> None:
        latents.append(tensors["latents"].cpu())

    start = time.perf_counter()
    images = draw(pipeline, folder.name, seeds, callback_on_step_end=after_step, **options)
    return images, (time.perf_counter() - start) * 1000, latents


draw_lent = lend_gpu(draw_timed)
LENT = draw_lent is not draw_timed
