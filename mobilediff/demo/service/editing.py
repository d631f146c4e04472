"""Edit a picture with a model: draw a masked part of it anew, or variations of the whole."""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from eval.benchmark.size import network_inputs
from eval.protocol import folder_sha256
from eval.samples.pipelines import load_sampler
from mobilediff.demo.service.drawing import draw
from mobilediff.demo.service.exploration import Progress, choose_model, draw_in_turns
from mobilediff.demo.service.inputs import check_count, check_prompt, check_seed, check_text, quoted
from mobilediff.demo.service.models import Model, Models
from mobilediff.demo.service.pictures import read_mask, read_picture
from mobilediff.demo.service.sheet import MAX_URI
from mobilediff.demo.service.sheet import read_picture as read_data_uri
from mobilediff.demo.service.turns import TURNS
from mobilediff.downstream.img2img import MobileDiffusionImg2ImgPipeline
from mobilediff.downstream.inpaint import MobileDiffusionInpaintPipeline
from mobilediff.models.macs import count_params_and_macs
from mobilediff.pipeline import MobileDiffusionPipeline

logger = logging.getLogger(__name__)

FAST = "student-1step"
REPAINTER = f"{FAST}-inpaint"


def preferred(names: Sequence[str]) -> str | None:
    """Return the one-step student's name where it is among `names`, else the first of them."""
    return FAST if FAST in names else next(iter(names), None)


def check_strength(strength: object) -> float:
    """Return a strength.

    Raises:
        ValueError: it is no number above 0 and up to 1.
    """
    if not isinstance(strength, int | float) or isinstance(strength, bool) or not 0 < strength <= 1:
        raise ValueError(f"The strength is {quoted(strength)}; accepted is a number above 0, up to 1.")
    return float(strength)


def as_pipeline(model: Model, cls: type[MobileDiffusionPipeline]) -> Model:
    """Return a model with a pipeline of another class, of the same networks."""
    with TURNS.of_batch():
        pipeline = cls.from_pipe(model.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return replace(model, pipeline=pipeline)


def load_inpainter(folder: Path, device: torch.device) -> Model:
    """Load a checkpoint whose network sees masks, and count its figures."""
    pipeline = load_sampler(folder, device)
    params, macs = count_params_and_macs(pipeline.unet, network_inputs(pipeline))
    return Model(folder, folder_sha256(folder), pipeline, pipeline.nfe(), params, macs)


class Inpainters:
    """Hold the models that repaint: all of `Models`, and checkpoints beside them whose networks see masks.

    Args:
        models: draw from text, and see of a picture what is kept.
    """

    def __init__(self, models: Models):
        self.models = models
        self._own = models.downstream(MobileDiffusionInpaintPipeline)
        self._loaded: dict[str, Model] = {}

    @property
    def names(self) -> list[str]:
        """Name the models."""
        return [*self.models.names, *self._own]

    @property
    def preferred(self) -> str | None:
        """Name the one-step student that was trained to repaint where it is there, else as `preferred`."""
        return REPAINTER if REPAINTER in self._own else preferred(self.models.names)

    def get(self, name: object) -> Model:
        """Return a model that repaints; a checkpoint of its own is loaded at its first call.

        Raises:
            ValueError: there is none of this name, or it cannot be loaded.
        """
        if not isinstance(name, str) or name not in self._own:
            return as_pipeline(choose_model(self.models, name), MobileDiffusionInpaintPipeline)
        with TURNS.of_batch():
            if name not in self._loaded:
                folder = self.models.folder / name
                try:
                    self._loaded[name] = load_inpainter(folder, self.models.device)
                except Exception as error:  # a broken folder can raise anything
                    logger.error("%s cannot be loaded: %s: %s", folder, type(error).__name__, error)
                    raise ValueError(f"{name} cannot be loaded, and the log of the app says why.") from error
        return as_pipeline(self._loaded[name], MobileDiffusionInpaintPipeline)


def at_size_of(model: Model, picture: Image.Image, resampling: Image.Resampling) -> Image.Image:
    """Bring a picture to the size of those that an editing model draws."""
    height, width = model.pipeline._image_size()
    return picture if picture.size == (width, height) else picture.resize((width, height), resampling)


def repaint(
    inpainters: Inpainters,
    folder: str | Path,
    picture: object,
    mask: object,
    prompt: object,
    strength: object,
    name: object,
    seed: object,
    count: object,
    cancelled: threading.Event,
) -> Iterator[Progress]:
    """Draw the masked part of a picture anew, `count` times, by a prompt and seeds from `seed` on.

    Args:
        folder: that gradio keeps uploads in.
        picture, mask: as in `read_picture` and `read_mask`.

    Yields:
        As `in_turns`.

    Raises:
        ValueError: bad input, before the model draws.
    """
    strength, seed, count = check_strength(strength), check_seed(seed), check_count(count)
    check_text(prompt)
    image, size = read_picture(picture, folder)
    mask_image = read_mask(mask, size, folder)
    model = inpainters.get(name)
    prompt = check_prompt(prompt, model.pipeline.tokenizer)
    given = {
        "image": at_size_of(model, image, Image.Resampling.LANCZOS),
        "mask_image": at_size_of(model, mask_image, Image.Resampling.NEAREST),
        "strength": strength,
    }
    yield from draw_in_turns(model, prompt, seed, count, cancelled, **given)


def vary(
    models: Models,
    folder: str | Path,
    picture: object,
    prompt: object,
    strength: object,
    name: object,
    seed: object,
    count: object,
    cancelled: threading.Event,
) -> Iterator[Progress]:
    """Draw variations of a whole picture; arguments, yields and errors as of `repaint`."""
    strength, seed, count = check_strength(strength), check_seed(seed), check_count(count)
    check_text(prompt)
    image, _ = read_picture(picture, folder)
    model = as_pipeline(choose_model(models, name), MobileDiffusionImg2ImgPipeline)
    prompt = check_prompt(prompt, model.pipeline.tokenizer)
    image = at_size_of(model, image, Image.Resampling.LANCZOS)
    yield from draw_in_turns(model, prompt, seed, count, cancelled, image=image, strength=strength)


def new_picture(models: Models, prompt: object, seed: object, cancelled: threading.Event) -> Iterator[Image.Image]:
    """Draw a picture to edit with the model that `preferred` names.

    Yields:
        The picture, unless `cancelled` is set meanwhile.

    Raises:
        ValueError: bad input, or the model cannot draw it.
    """
    seed, prompt = check_seed(seed), check_text(prompt)
    (name,) = models.choose([name for name in models.names if name == preferred(models.names)])
    model = models.get(name)
    drawing = draw(model, check_prompt(prompt, model.pipeline.tokenizer), seed, 1, cancelled)
    if cancelled.is_set():
        return
    if drawing.problem is not None:
        raise ValueError(drawing.problem)
    yield drawing.images[0]


def chosen_proposal(uri: object) -> Image.Image:
    """Decode a proposal that a visitor chose.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(uri, str) or len(uri) > MAX_URI:
        raise ValueError(f"The proposal is {quoted(uri)}; accepted is a picture that was drawn here.")
    return read_data_uri(uri)
