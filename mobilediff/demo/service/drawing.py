"""Draw one prompt with one model in one call, timed from text to images."""

import base64
import io
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from PIL import Image

from eval.samples.draw import draw as draw_images
from mobilediff.demo.service.lent import LENT, draw_lent
from mobilediff.demo.service.models import Model
from mobilediff.demo.service.turns import TURNS, Cancelled
from mobilediff.pipeline import MobileDiffusionPipeline

logger = logging.getLogger(__name__)

PNG_URI = "data:image/png;base64,"

# A model and N seeds to its initial latents, [N, C, h, w].
Noise = Callable[[Model, list[int]], torch.Tensor]
Turn = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Drawing:
    """Hold what one call drew.

    Attributes:
        problem: why there are no images, as a sentence; None once drawn.
        latency_ms: of the call, without waiting for a turn.
        images: drawn.
    """

    problem: str | None = None
    latency_ms: float = 0.0
    images: list[Image.Image] = field(default_factory=list)


def draw(
    model: Model, prompt: str, seed: int, count: int, cancelled: threading.Event, noise: Noise | None = None, **options
) -> Drawing:
    """Draw `count` images of one prompt, image i with the seed `seed` + i; `noise` and `options` as in `draw_seeds`.

    All models start from the same latents, and the number of images changes none of them by more than rounding.
    """
    seeds = list(range(seed, seed + count))
    return draw_seeds(model, seeds, cancelled, noise, prompt=prompt, num_images_per_prompt=count, **options)


def draw_seeds(
    model: Model,
    seeds: list[int],
    cancelled: threading.Event,
    noise: Noise | None = None,
    turn: Turn = TURNS.of_visitor,
    on_latents: Callable[[torch.Tensor], None] | None = None,
    **options,
) -> Drawing:
    """Draw one image a seed in one call, and time it from text to images.

    Each image has a generator of its own for the scheduler's noise and, unless there is a `noise` that makes them, for
    its latents. Draws of several threads wait for each other; a cancelled one ends after the step under way. On a lent
    GPU, which draws from text alone, they need no turn on the processor, and a cancelled one ends after the call.

    Args:
        turn: on the processor, of `TURNS`.
        on_latents: called with the latents after each step, [N, C, h, w].
        options: further arguments of the pipeline's call, such as `num_inference_steps`.
    """
    if LENT and type(model.pipeline) is MobileDiffusionPipeline:
        return _draw_lent(model, seeds, cancelled, noise, on_latents, options)

    def after_step(_pipeline, _step, _timestep, tensors: dict) -> None:
        if cancelled.is_set():
            raise Cancelled
        if on_latents is not None:
            on_latents(tensors["latents"])

    with turn():
        start = time.perf_counter()
        if cancelled.is_set():
            return Drawing("cancelled")
        try:
            drawn = draw_images(
                model.pipeline,
                model.name,
                seeds,
                callback_on_step_end=after_step,
                latents=noise(model, seeds) if noise else None,
                **options,
            )
            images = _as_images(drawn)
        except Cancelled:
            return Drawing("cancelled")
        except ValueError as error:  # NaN latents: the other models still draw
            return Drawing(str(error))
        except Exception:  # as without memory: the other models still draw
            logger.exception("%s failed", model.name)
            return Drawing("This model failed; the log of the app says why.")
        latency = (time.perf_counter() - start) * 1000
    return Drawing(latency_ms=latency, images=images)


def _draw_lent(
    model: Model,
    seeds: list[int],
    cancelled: threading.Event,
    noise: Noise | None,
    on_latents: Callable[[torch.Tensor], None] | None,
    options: dict,
) -> Drawing:
    """Draw as `draw_seeds`, on a lent GPU."""
    if cancelled.is_set():
        return Drawing("cancelled")
    try:
        latents = noise(model, seeds) if noise else None
        drawn, latency, steps = draw_lent(model.folder, seeds, options | {"latents": latents})
    except Exception as error:  # the package raises gradio's own, as for a visitor whose time on the GPU is used up
        logger.exception("%s failed on the lent GPU", model.name)
        return Drawing(f"The lent GPU did not draw: {error}")
    if on_latents is not None:
        for after_step in steps:
            on_latents(after_step)
    return Drawing(latency_ms=latency, images=_as_images(drawn))


def _as_images(drawn: torch.Tensor) -> list[Image.Image]:
    """Make images of uint8 [N, 3, H, W]."""
    return [Image.fromarray(image) for image in drawn.permute(0, 2, 3, 1).contiguous().numpy()]


def png_uri(image: Image.Image) -> str:
    """Encode an image as a lossless data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return PNG_URI + base64.b64encode(buffer.getvalue()).decode()
