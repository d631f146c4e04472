"""Choose models to evaluate: checkpoints, and exported folders beside them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from eval.benchmark.latency import MAX_BATCH_SIZE
from eval.samples.exported import load_exported_sampler
from eval.samples.settings import SamplingSettings, resolve_settings
from mobilediff.demo.service.inputs import check_names, quoted
from mobilediff.demo.service.models import TEMPLATE_CHARACTERS, Model, Models
from mobilediff.demo.service.turns import TURNS
from mobilediff.files import read_json
from mobilediff.ondevice.exported import ExportedPipeline, is_exported
from mobilediff.ondevice.formats import load_format
from mobilediff.ondevice.manifest import MANIFEST
from mobilediff.pipeline import MobileDiffusionPipeline

logger = logging.getLogger(__name__)

# Multiply-accumulates between two pauses of a drawing, and images an export draws without one at one step each: about
# half a second of two slow cores. They decide the batch size, so a command of the same batch size repeats the samples.
PIECE_MACS = 5_000_000_000
EXPORT_IMAGES = 8
EXPORT_MACS = 300_000_000  # of a step of an export, to estimate the time left


@dataclass(frozen=True)
class Target:
    """Hold a model whose samples are measured.

    Attributes:
        name: as visitors choose it: of a checkpoint, or of an export behind its folder's name.
        path: of its folder in a command line, without the machine's own part.
        folder: with its files.
        pipeline: draws the samples.
        settings: a seed and a kind of prompts to the settings of its samples.
        batch_size: samples drawn at once.
        macs: multiply-accumulates of an image, about.
    """

    name: str
    path: str
    folder: Path
    pipeline: MobileDiffusionPipeline | ExportedPipeline
    settings: Callable[[int, str], SamplingSettings]
    batch_size: int
    macs: int


def batch_size_of(macs: int) -> int:
    """Return as many samples as take `PIECE_MACS`, if one takes `macs` between two pauses; at least 1."""
    return max(1, min(MAX_BATCH_SIZE, PIECE_MACS // macs))


class Targets:
    """Name and load the models of `Models` and the exported folders of another folder.

    Args:
        models: the checkpoints.
        exports: a folder with one folder an export; it need not exist.

    Attributes:
        problems: exports that are left out and why, as sentences.
    """

    def __init__(self, models: Models, exports: Path):
        self.models = models
        self._exports: dict[str, Path] = {}
        self.problems: list[str] = []
        for folder in sorted(path for path in exports.glob("[!.]*") if is_exported(path)):
            name = f"{exports.name}/{folder.name}"
            if set(name) & set(TEMPLATE_CHARACTERS):
                self.problems.append(
                    f"{quoted(name)} is left out: a name may not hold a backtick, dollar or backslash."
                )
                continue
            try:
                load_format(read_json(folder / MANIFEST)["format"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = str(error) if "is not installed" in str(error) else "its manifest cannot be read"
                self.problems.append(f"{name} is left out: {reason}.")
            else:
                self._exports[name] = folder

    @property
    def names(self) -> list[str]:
        """Name the checkpoints and the exports."""
        return [*self.models.names, *self._exports]

    def choose(self, names: object) -> list[str]:
        """Check the names that were chosen, and return them in the order of `names`; errors as in `check_names`."""
        return check_names(names, self.names)

    def folder_name(self, name: str) -> str:
        """Return the name of a target's folder, under which timings state it."""
        return self._exports[name].name if name in self._exports else name

    def get(self, name: str) -> Target:
        """Load a model; waits for a checkpoint that is still being loaded.

        Raises:
            ValueError: it cannot be loaded.
        """
        return self._export(name) if name in self._exports else self._checkpoint(self.models.get(name))

    def _checkpoint(self, model: Model) -> Target:
        folder = self.models.folder / model.name
        guided = model.nfe > model.pipeline.config.default_num_inference_steps
        return Target(
            name=model.name,
            path=f"{self.models.folder.name}/{model.name}",
            folder=folder,
            pipeline=model.pipeline,
            settings=lambda seed, prompts: resolve_settings(model.pipeline, folder, seed, prompts),
            batch_size=batch_size_of(model.macs * (2 if guided else 1)),
            macs=model.nfe * model.macs,
        )

    def _export(self, name: str) -> Target:
        folder = self._exports[name]
        try:
            with TURNS.of_batch():
                pipeline, settings = load_exported_sampler(folder)
        except (OSError, ValueError) as error:
            logger.error("%s cannot be loaded: %s", folder, error)
            raise ValueError(f"{name} cannot be loaded, and the log of the app says why.") from error
        steps = settings.num_inference_steps
        return Target(
            name=name,
            path=name,
            folder=folder,
            pipeline=pipeline,
            settings=lambda seed, prompts: replace(settings, seed=seed, prompts=prompts),
            batch_size=max(settings.graph_batch_size, EXPORT_IMAGES // steps),
            macs=steps * EXPORT_MACS,
        )
