"""Load the checkpoints of a folder, the cheapest first, while the app already answers."""

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch

from eval.benchmark.size import measure_size
from eval.metrics.pauses import pause
from eval.protocol import folder_sha256
from eval.samples.pipelines import load_sampler
from mobilediff.checkpoints import DOWNSTREAM_PIPELINES, pipeline_class, read_index
from mobilediff.demo.service.inputs import check_names
from mobilediff.demo.service.lent import DEVICE, LENT
from mobilediff.demo.service.turns import TURNS
from mobilediff.pipeline import MobileDiffusionPipeline

logger = logging.getLogger(__name__)

# The cheapest image first.
FAMILY = ("student-1step-pruned", "student-1step", "student-8step", "student", "teacher")
LORAS = "loras"  # a folder beside the checkpoints, with a folder for each LoRA
# gradio fills the page's cards with names and evaluates them as a template string of JavaScript.
TEMPLATE_CHARACTERS = "`$\\"


@dataclass(frozen=True)
class Model:
    """Hold a loaded checkpoint with its hash and figures.

    Attributes:
        folder: that it was loaded from.
        sha256: of the folder, by `folder_sha256`.
        pipeline: ready to draw.
        nfe: network evaluations an image.
        params: parameters in use, text encoder and decoder included.
        macs: multiply-accumulates of one network call.
    """

    folder: Path
    sha256: str
    pipeline: MobileDiffusionPipeline
    nfe: int
    params: int
    macs: int

    @property
    def name(self) -> str:
        """Name the model as its folder."""
        return self.folder.name


def load_model(folder: Path, device: torch.device) -> Model:
    """Load a checkpoint, warm it up with one image, and count its figures, with a pause between these."""
    pipeline = load_sampler(folder, device)
    pause()
    pipeline(class_labels=0, generator=torch.Generator().manual_seed(0))
    pause()
    size = measure_size(pipeline, folder)
    return Model(folder, folder_sha256(folder), pipeline, size["nfe"], size["params_total"], size["macs_network_call"])


def downstream_class(folder: Path) -> type[MobileDiffusionPipeline] | None:
    """Look up which of `DOWNSTREAM_PIPELINES` a checkpoint is saved as; None for none, and for a broken one."""
    try:
        saved = pipeline_class(read_index(folder))
    except (OSError, ValueError):
        return None
    return saved if saved in DOWNSTREAM_PIPELINES else None


def _place(name: str) -> tuple[int, str]:
    """Return the sort key of a checkpoint: its member of `FAMILY`, or the one whose name it continues."""
    relatives = [member for member in FAMILY if name == member or name.startswith(f"{member}-")]
    # of two the first is the longer name
    return min(map(FAMILY.index, relatives), default=len(FAMILY)), name


class Models:
    """Hold the models of a folder, which one thread loads in the order of `names`.

    The order is the family's, each followed by those that are named after it; others come last, by name.

    Args:
        folder: with one folder a checkpoint; those of `DOWNSTREAM_PIPELINES` are left to `downstream`.

    Attributes:
        device: that all models run on.
        drawing_device: that pictures are drawn on, where that is a lent GPU.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        own = None if LENT else torch.accelerator.current_accelerator(check_available=True)
        self.device = own or torch.device("cpu")
        self.drawing_device = torch.device(DEVICE) if LENT else self.device
        found = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir() and path.name != LORAS)
        self._missing = [f"{folder.name}/{name} is missing." for name in reversed(FAMILY) if name not in found]
        unsafe = [name for name in found if set(name) & set(TEMPLATE_CHARACTERS)]
        for name in unsafe:
            shown = "".join("?" if character in TEMPLATE_CHARACTERS else character for character in name)
            self._missing.append(
                f"{folder.name}/{shown} is left out: a name may not hold a backtick, dollar or backslash."
            )
        ordered = sorted(set(found) - set(unsafe), key=_place)
        classes = {name: downstream_class(folder / name) for name in ordered}
        self._downstream = {name: cls for name, cls in classes.items() if cls is not None}
        self._loads: dict[str, Future[Model]] = {name: Future() for name, cls in classes.items() if cls is None}
        threading.Thread(target=self._load_all, daemon=True, name="models").start()

    def _load_all(self) -> None:
        for name, load in self._loads.items():
            try:
                # diffusers builds a network under patches that all threads share
                with TURNS.of_long_work(threading.Event()):
                    model = load_model(self.folder / name, self.device)
                load.set_result(model)
            except Exception as error:  # a broken folder can raise anything
                logger.error("%s is left out: %s: %s", self.folder / name, type(error).__name__, error)
                load.set_exception(
                    ValueError(
                        f"{self.folder.name}/{name} is left out: it cannot be loaded, and the log of the app says why."
                    )
                )

    @property
    def names(self) -> list[str]:
        """Name the models that are loaded or may yet be."""
        return [name for name, load in self._loads.items() if not (load.done() and load.exception())]

    def get(self, name: str) -> Model:
        """Return a model, once it is loaded.

        Raises:
            ValueError: it cannot be loaded.
            KeyError: there is none of this name.
        """
        return self._loads[name].result()

    def is_loaded(self, name: str) -> bool:
        """Tell whether `get` answers at once."""
        return self._loads[name].done()

    def downstream(self, cls: type[MobileDiffusionPipeline]) -> list[str]:
        """Name the folders that a class of `DOWNSTREAM_PIPELINES` saved, which are not loaded."""
        return [name for name, saved in self._downstream.items() if saved is cls]

    def choose(self, names: object) -> list[str]:
        """Check the names that were chosen, and return them in the order of `names`; errors as in `check_names`."""
        return check_names(names, self.names)

    def loaded(self) -> list[Model]:
        """Return the models that are loaded by now."""
        return [load.result() for load in self._loads.values() if load.done() and not load.exception()]

    def all(self) -> list[Model]:
        """Return all models that can be loaded, once each was tried."""
        for load in self._loads.values():
            load.exception()
        return self.loaded()

    def problems(self) -> list[str]:
        """Write what is missing and what is broken, as sentences without the machine's own paths."""
        broken = [str(load.exception()) for load in self._loads.values() if load.done() and load.exception()]
        return [*self._missing, *broken]
