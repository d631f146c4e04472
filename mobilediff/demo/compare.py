"""Draw one prompt from one noise with every checkpoint of a folder, the cheapest first."""

import base64
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from eval.benchmark.size import measure_size
from eval.protocol import folder_sha256
from eval.samples.draw import draw as draw_images
from eval.samples.pipelines import load_sampler
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.prompts import is_unicode

logger = logging.getLogger(__name__)

FAMILY = ("teacher", "student", "student-8step", "student-1step", "student-1step-pruned")
MAX_IMAGES, MAX_CHARACTERS, MAX_SEED = 8, 200, 2**32 - 1
MAX_QUOTED = 60  # characters of a refused value in a message
PNG_URI = "data:image/png;base64,"
# gradio fills the page's cards with names and evaluates them as a template string of JavaScript.
TEMPLATE_CHARACTERS = "`$\\"
# Two draws at once would share the processor, and so disturb each other's times.
ONE_DRAW = threading.Lock()

# A model and N seeds to its initial latents, [N, C, h, w].
Noise = Callable[["Model", list[int]], torch.Tensor]


@dataclass(frozen=True)
class Model:
    """Hold a loaded checkpoint with its hash and figures.

    Attributes:
        name: of its folder.
        sha256: of the folder, by `folder_sha256`.
        pipeline: ready to draw.
        nfe: network evaluations an image.
        params: parameters in use, text encoder and decoder included.
        macs: multiply-accumulates of one network call.
    """

    name: str
    sha256: str
    pipeline: MobileDiffusionPipeline
    nfe: int
    params: int
    macs: int


def load_model(folder: Path, device: torch.device) -> Model:
    """Load a checkpoint, warm it up with one image, and count its figures."""
    pipeline = load_sampler(folder, device)
    pipeline(class_labels=0, generator=torch.Generator().manual_seed(0))
    size = measure_size(pipeline, folder)
    return Model(
        folder.name, folder_sha256(folder), pipeline, size["nfe"], size["params_total"], size["macs_network_call"]
    )


def load_models(folder: Path) -> tuple[list[Model], list[str]]:
    """Load every checkpoint of a folder, and name those that are missing or broken.

    Returns:
        The models, the cheapest image (NFE x MACs) first, and the problems as sentences for the page; the log has the
        errors, whose paths are the machine's own affair.
    """
    found = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir())
    problems = [f"{folder.name}/{name} is missing." for name in FAMILY if name not in found]
    models, device = [], torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    for name in found:
        if set(name) & set(TEMPLATE_CHARACTERS):
            shown = "".join("?" if character in TEMPLATE_CHARACTERS else character for character in name)
            problems.append(f"{folder.name}/{shown} is left out: a name may not hold a backtick, dollar or backslash.")
            continue
        try:
            models.append(load_model(folder / name, device))
        except Exception as error:  # a broken folder can raise anything
            logger.error("%s is left out: %s: %s", folder / name, type(error).__name__, error)
            problems.append(f"{folder.name}/{name} is left out: it cannot be loaded, and the log of the app says why.")
    return sorted(models, key=lambda model: (model.nfe * model.macs, model.name)), problems


def quoted(value: object) -> str:
    """Write a refused value in ASCII, cut to `MAX_QUOTED` characters."""
    text = ascii(value if not isinstance(value, str) else value[:MAX_QUOTED])
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


def choose_models(models: list[Model], names: list[str]) -> list[Model]:
    """Choose models by name, in the order of `models`.

    Raises:
        ValueError: `names` is no list of names, holds others, or there are none.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"The models are {quoted(names)}; accepted is a list of names.")
    known = [model.name for model in models]
    if unknown := [name for name in names if name not in known]:
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise ValueError(f"There is no model {quoted(unknown[0])}{more}; accepted are {', '.join(known) or 'none'}.")
    return [model for model in models if model.name in names]


def is_whole(value: object, low: int, high: int) -> bool:
    """Tell whether a value is a whole number from `low` to `high`; NaN, text and truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high and value % 1 == 0


def check_inputs(models: list[Model], prompt: str, seed: float, count: float) -> None:
    """Refuse bad input before any work.

    Raises:
        ValueError: naming the value and the accepted ones.
    """
    if not models:
        raise ValueError("No model is chosen, or none could be loaded.")
    if not isinstance(prompt, str):
        raise ValueError(f"The prompt is {quoted(prompt)}; accepted is text, for example: a fire truck.")
    if not prompt.strip():
        raise ValueError("The prompt is empty. Say what the picture should show, for example: a fire truck.")
    if len(prompt) > MAX_CHARACTERS:
        raise ValueError(f"The prompt has {len(prompt)} characters; accepted are up to {MAX_CHARACTERS}.")
    if not is_unicode(prompt):
        raise ValueError(f"The prompt {quoted(prompt)} holds half a surrogate pair; accepted is Unicode text.")
    tokenizer = models[0].pipeline.tokenizer
    tokens, most = len(tokenizer(prompt).input_ids), tokenizer.model_max_length
    if tokens > most:
        raise ValueError(f"The prompt has {tokens} tokens; accepted are up to {most}. Say it shorter.")
    if not is_whole(seed, 0, MAX_SEED):
        raise ValueError(f"The seed is {quoted(seed)}; accepted is a whole number from 0 to {MAX_SEED}.")
    if not is_whole(count, 1, MAX_IMAGES):
        raise ValueError(
            f"The number of images is {quoted(count)}; accepted is a whole number from 1 to {MAX_IMAGES}."
        )


def png_uri(image: Image.Image) -> str:
    """Encode an image as a lossless data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return PNG_URI + base64.b64encode(buffer.getvalue()).decode()


class Cancelled(Exception):
    """Nobody waits for the images that a call is drawing."""


def draw(
    model: Model, prompt: str, seed: int, count: int, cancelled: threading.Event, noise: Noise | None = None
) -> dict:
    """Draw `count` images, and time the call from text to images.

    Image i has a generator of its own, seeded with `seed` + i, for the scheduler's noise and, unless there is a
    `noise` that makes them, for its latents. So all
    models start from the same latents, and the number of images changes none of them by more than rounding. Draws of
    several threads wait for each other; a cancelled one ends after the step under way.

    Returns:
        `status` ("done" or "failed"), `time` as a sentence, and once done `latency_ms` and `images`, PNG data URIs.
    """
    seeds = list(range(seed, seed + count))

    def stop_if_cancelled(*_) -> None:
        if cancelled.is_set():
            raise Cancelled

    with ONE_DRAW:
        start = time.perf_counter()
        try:
            stop_if_cancelled()
            drawn = draw_images(
                model.pipeline,
                model.name,
                seeds,
                prompt=prompt,
                num_images_per_prompt=count,
                callback_on_step_end=stop_if_cancelled,
                latents=noise(model, seeds) if noise else None,
            )
            images = [Image.fromarray(image) for image in drawn.permute(0, 2, 3, 1).contiguous().numpy()]
        except Cancelled:
            return {"status": "failed", "time": "cancelled"}
        except ValueError as error:  # NaN latents: the other models still draw
            return {"status": "failed", "time": str(error)}
        except Exception:  # as without memory: the other models still draw
            logger.exception("%s failed", model.name)
            return {"status": "failed", "time": "This model failed; the log of the app says why."}
        latency = (time.perf_counter() - start) * 1000
    text = f"{latency:,.0f} ms for {count} image{'s' if count > 1 else ''}"
    return {"status": "done", "time": text, "latency_ms": latency, "images": [png_uri(image) for image in images]}


def compare(
    models: list[Model],
    prompt: str,
    seed: float,
    count: float,
    cancelled: threading.Event,
    noise: Noise | None = None,
) -> Iterator[tuple[list[dict], str]]:
    """Draw one prompt with each model in turn, until another thread sets `cancelled`; `noise` as for `draw`.

    Yields:
        One record a model (figures, status, latency and images as data URIs once done), and the pipelines' warnings
        about the prompt, one a line; each time a model starts, and at the end.

    Raises:
        ValueError: as in `check_inputs`.
    """
    check_inputs(models, prompt, seed, count)
    records = [
        {
            "name": model.name,
            "model_sha256": model.sha256,
            "status": "waiting",
            "time": "waiting",
            "latency_ms": None,
            "batch_size": int(count),
            "nfe": model.nfe,
            "params": model.params,
            "macs": model.macs,
            "figures": [f"NFE {model.nfe}", f"{model.params / 1e6:.3g} M params", f"{model.macs / 1e9:.3g} GMACs"],
            "images": [],
        }
        for model in models
    ]
    note = "\n".join(dict.fromkeys(warning for model in models for warning in model.pipeline.prompt_warnings(prompt)))
    for index, model in enumerate(models):
        records[index] |= {"status": "running", "time": "running …"}
        yield json.loads(json.dumps(records)), note  # a copy: records go on changing
        records[index] |= draw(model, prompt, int(seed), int(count), cancelled, noise)
    yield records, note
