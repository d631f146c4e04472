"""Draw by a sketch with the one-step control model, in the style of a LoRA or without."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from eval.metrics.pauses import pause
from eval.samples.draw import draw
from eval.samples.pipelines import load_sampler
from mobilediff.demo.service.exploration import as_json
from mobilediff.demo.service.inputs import check_choice, check_number, check_prompt, check_seed
from mobilediff.demo.service.models import LORAS, Models
from mobilediff.demo.service.sketches import SIZE, read_sketch
from mobilediff.demo.service.turns import TURNS
from mobilediff.downstream.control import MobileDiffusionControlPipeline

logger = logging.getLogger(__name__)

CONTROL = "student-1step-control"
NO_LORA = "none"
MAX_SCALE, MAX_WEIGHT = 2.0, 2.0
MAX_AT_ONCE = 8  # strokes' pictures under way, of all visitors; a page has one at most
EMPTY = "The sketch is empty, so the picture is drawn from the prompt alone."


def lora_folders(checkpoints: Path) -> dict[str, Path]:
    """List the folders of LoRAs beside the checkpoints by name; a LoRA's name is an identifier."""
    files = sorted((checkpoints / LORAS).glob("*/*.safetensors"))
    return {file.parent.name: file.parent for file in files if file.parent.name.isidentifier()}


def has_control(models: Models) -> bool:
    """Tell whether there is a control model among the checkpoints."""
    return CONTROL in models.downstream(MobileDiffusionControlPipeline)


@dataclass
class Pipelines:
    """Hold the control model twice: what a LoRA changes is never seen by the plain one.

    Attributes:
        plain: without adapters.
        styled: with all LoRAs that could be loaded; None without any.
        broken: names of the others.
        adapter: LoRA and weight that `styled` is set to, None for none yet.
    """

    plain: MobileDiffusionControlPipeline
    styled: MobileDiffusionControlPipeline | None = None
    broken: list[str] = field(default_factory=list)
    adapter: tuple[str, float] | None = None

    def of(self, lora: str, weight: float) -> MobileDiffusionControlPipeline:
        """Return the pipeline that draws with a LoRA, set to it.

        Raises:
            ValueError: it could not be loaded.
        """
        if lora == NO_LORA:
            return self.plain
        if self.styled is None or lora in self.broken:
            raise ValueError(f"{LORAS}/{lora} is left out: it cannot be loaded, and the log of the app says why.")
        if self.adapter != (lora, weight):
            if self.adapter is not None:
                self.styled.unfuse_lora()
            self.adapter = None
            self.styled.set_adapters([lora], [weight])
            self.styled.fuse_lora()  # which a change of style pays for, and no stroke
            self.adapter = lora, weight
        return self.styled


class Sketcher:
    """Draw by sketches, with pipelines that a thread loads once the models of all tabs are there.

    Args:
        models: of a folder that also holds the control model, `CONTROL`, and may hold LoRAs.

    Attributes:
        loras: names of those that a visitor can choose, "none" first.
    """

    def __init__(self, models: Models):
        self._models = models
        self._folder = models.folder / CONTROL
        self._lora_folders = lora_folders(models.folder)
        self.loras = (NO_LORA, *self._lora_folders)
        self._load: Future[Pipelines] = Future()
        self._places = threading.BoundedSemaphore(MAX_AT_ONCE)
        threading.Thread(target=self._load_all, daemon=True, name="sketches").start()

    def _load_all(self) -> None:
        self._models.all()  # which are loaded by another thread, and first
        try:
            # diffusers builds a network under patches that all threads share
            with TURNS.of_long_work(threading.Event()):
                self._load.set_result(self._pipelines())
        except Exception as error:  # a broken folder can raise anything
            logger.error("%s is left out: %s: %s", self._folder, type(error).__name__, error)
            name = f"{self._models.folder.name}/{CONTROL}"
            self._load.set_exception(
                ValueError(f"{name} is left out: it cannot be loaded, and the log of the app says why.")
            )

    def _pipelines(self) -> Pipelines:
        pipelines = Pipelines(self._loaded())
        if not self._lora_folders:
            return pipelines
        pause()
        pipelines.styled = self._loaded()
        for name, folder in self._lora_folders.items():
            try:
                pipelines.styled.load_lora_weights(folder, adapter_name=name)
            except (ValueError, OSError) as error:
                logger.error("%s is left out: %s", folder, error)
                pipelines.broken.append(name)
        return pipelines

    def _loaded(self) -> MobileDiffusionControlPipeline:
        pipeline: Any = load_sampler(self._folder, self._models.device)
        blank = Image.new("L", (SIZE, SIZE))
        pipeline(class_labels=0, image=blank)  # the first picture takes longer
        return pipeline

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Take one of the places for pictures that pass the queue by.

        Raises:
            ValueError: all are taken.
        """
        if not self._places.acquire(blocking=False):
            raise ValueError(f"{MAX_AT_ONCE} pictures of sketches are on their way; the next stroke draws again.")
        try:
            yield
        finally:
            self._places.release()

    def draw(
        self, sketch: object, prompt: object, seed: object, scale: object, lora: object, weight: object, uploads: str
    ) -> tuple[dict[str, Any], str]:
        """Draw one picture by a sketch.

        Args:
            sketch, prompt, seed: as `read_sketch`, `check_prompt` and `check_seed` take them.
            scale: of the control, 0 to `MAX_SCALE`; 0 draws as without a sketch.
            lora: one of `loras`.
            weight: of the LoRA, 0 to `MAX_WEIGHT`.
            uploads: folder that gradio keeps uploads in.

        Returns:
            The picture and the conditions as JSON, and notes, one a line.

        Raises:
            ValueError: bad input, or a model cannot be loaded or cannot draw it.
        """
        seed, scale = check_seed(seed), check_number("control scale", scale, 0, MAX_SCALE)
        lora = check_choice("LoRA", lora, self.loras)
        weight = check_number("weight of the LoRA", weight, 0, MAX_WEIGHT)
        conditions = read_sketch(sketch, uploads)
        pipelines = self._load.result()
        prompt = check_prompt(prompt, pipelines.plain.tokenizer)
        notes = [*pipelines.plain.prompt_warnings(prompt)]
        lines, colors = conditions.lines, conditions.colors
        if lines is None and colors is None:
            notes.append(EMPTY)
            lines, scale = Image.new("L", (SIZE, SIZE)), 0.0
        with TURNS.of_visitor():
            start = time.perf_counter()
            (drawn,) = draw(
                pipelines.of(lora, weight), CONTROL, [seed],
                prompt=prompt, image=lines, color_map=colors, controlnet_conditioning_scale=scale,
            )  # fmt: skip
            latency = (time.perf_counter() - start) * 1000
        given = {"lines": conditions.lines, "colours": conditions.colors}
        shown = {"picture": Image.fromarray(drawn.permute(1, 2, 0).contiguous().numpy())} | {
            name: image for name, image in given.items() if image is not None
        }
        return as_json(list(shown.values()), list(shown), f"1 image in {latency:,.0f} ms"), "\n".join(notes)
