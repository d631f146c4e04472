"""Damage pictures by degrees, and measure each time how far they lie from real ones."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch

from eval.metrics.frechet import Statistics, feature_statistics
from eval.samples.damage import blurred, compressed, noised
from eval.samples.draw import draw
from eval.samples.images import real_images
from eval.samples.prompts import plan_samples
from mobilediff.data import data_source
from mobilediff.demo.service.inputs import check_whole, quoted
from mobilediff.demo.service.measuring import (
    accuracy,
    distance,
    judge,
    precision_and_recall,
    real_figures,
    reference,
    reported_real,
)
from mobilediff.demo.service.models import Models
from mobilediff.demo.service.turns import TURNS

COUNT = 500  # pictures; a redraw takes as long as the judge needs for them
DRAWN = 20  # pictures a turn
MAX_BLUR, MAX_NOISE, MAX_DROPPED = 2.0, 0.2, 7
WHOLE = 100  # JPEG quality that stands for no compression
REAL = "CIFAR-10 test images"
COLUMNS = ("Figure", "Damaged", "Undamaged", "Real images, as many", "Real images, all")
TARGETS = (1, 4, 30)
KINDS = ("Blur", "Noise", "JPEG")
STEPS = 7  # halvings of the range of a strength


@dataclass(frozen=True)
class Damage:
    """Describe damage.

    Attributes:
        blur: standard deviation of a Gaussian, in pixels; 0 is none.
        noise: standard deviation, as a fraction of the range 0..1; 0 is none.
        quality: of JPEG, 1 to 99; 100 is no compression.
        dropped: classes that are left out, the first ones.
    """

    blur: float = 0.0
    noise: float = 0.0
    quality: int = WHOLE
    dropped: int = 0

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Blur, then noise, then compress images, uint8 [N, 3, 32, 32]."""
        if self.blur:
            images = blurred(images, self.blur)
        if self.noise:
            images = noised(images, self.noise)
        return images if self.quality == WHOLE else compressed(images, self.quality)


def check_damage(blur: object, noise: object, quality: object, dropped: object) -> Damage:
    """Return the damage of a visitor's values.

    Raises:
        ValueError: one is no number in its range.
    """
    return Damage(
        _check_number("blur", blur, MAX_BLUR),
        _check_number("noise", noise, MAX_NOISE),
        check_whole("JPEG quality", quality, 1, WHOLE),
        check_whole("number of dropped classes", dropped, 0, MAX_DROPPED),
    )


def _check_number(meaning: str, value: object, most: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"The {meaning} is {quoted(value)}; accepted is a number from 0 to {most}.")
    return float(value)


@dataclass(frozen=True)
class Pictures:
    """Hold pictures with what the judge says of them.

    Attributes:
        images: uint8 [N, 3, 32, 32].
        labels: class indices, int64 [N].
        features: float64 [N, F].
        logits: of the classes, float32 [N, 10].
    """

    images: torch.Tensor
    labels: torch.Tensor
    features: torch.Tensor
    logits: torch.Tensor

    def kept(self, rows: torch.Tensor) -> "Pictures":
        """Keep the pictures marked by `rows`, bool [N]."""
        return Pictures(self.images[rows], self.labels[rows], self.features[rows], self.logits[rows])


@dataclass(frozen=True)
class Redraw:
    """Hold what a damage does.

    Attributes:
        rows: figures, with as many texts as `COLUMNS`.
        from_undamaged: Frechet distance of the damaged pictures to the undamaged ones.
        damaged, undamaged: pictures, uint8 [N, 3, 32, 32], each at its own place.
    """

    rows: list[list[str]]
    from_undamaged: float
    damaged: torch.Tensor
    undamaged: torch.Tensor


class Originals:
    """Keep undamaged pictures for the process, drawn or read when they are first asked for.

    Args:
        models: of the app, the first of which draws.
    """

    def __init__(self, models: Models):
        self.models = models
        self._kept: dict[str, Pictures] = {}
        self._drawn: list[torch.Tensor] = []  # stay when a visitor leaves
        self._measured: dict[tuple[str, int], tuple[Pictures, Statistics, dict]] = {}

    @property
    def sources(self) -> list[str]:
        """Name the sources of pictures: samples of the first model, and real images where CIFAR-10 is there."""
        return [f"Samples of {name}" for name in self.models.names[:1]] + [REAL] * bool(data_source(None))

    def of(self, source: object) -> Generator[str, None, Pictures]:
        """Draw or read the pictures of a source in turns.

        Yields:
            A sentence after each turn.

        Raises:
            ValueError: there is no such source, or the model cannot be loaded.
        """
        if not isinstance(source, str) or source not in self.sources:
            raise ValueError(f"There are no pictures {quoted(source)}; accepted are {', '.join(self.sources)}.")
        if source not in self._kept:
            if source == REAL:
                yield "Reading CIFAR-10."
                with TURNS.of_batch():
                    real = real_images(None, "test").first(COUNT)
                images, labels = real.images, real.known_labels()
            else:
                images, labels = yield from self._draw()
            features, logits = yield from judge(images)
            self._kept[source] = Pictures(images, labels, features, logits)
        return self._kept[source]

    def without(self, source: object, dropped: int) -> Generator[str, None, tuple[Pictures, Statistics, dict]]:
        """Return the pictures of a source without the first classes, their statistics and figures; as `of`."""
        whole = yield from self.of(source)
        key = str(source), dropped
        if key not in self._measured:
            kept = whole.kept(whole.labels >= dropped)
            statistics = feature_statistics(kept.features)
            self._measured[key] = kept, statistics, _measure(kept, statistics)
        return self._measured[key]

    def _draw(self) -> Generator[str, None, tuple[torch.Tensor, torch.Tensor]]:
        model = self.models.get(self.models.names[0])
        plan = plan_samples(COUNT, "class", model.pipeline.config.class_template)
        while (start := DRAWN * len(self._drawn)) < COUNT:
            seeds = list(range(start, start + DRAWN))
            with TURNS.of_batch():
                self._drawn.append(draw(model.pipeline, model.name, seeds, prompt=plan.prompts_of(seeds)))
            yield f"Drew {start + DRAWN:,} of {COUNT:,} samples, once for all visitors."
        return torch.cat(self._drawn), torch.tensor(plan.class_labels)


def redraw(originals: Originals, source: object, damage: Damage) -> Generator[str, None, Redraw]:
    """Damage pictures and measure them in turns.

    Yields:
        A sentence after each turn.

    Raises:
        ValueError: as in `Originals.of`.
    """
    whole, statistics, undamaged = yield from originals.without(source, damage.dropped)
    damaged = yield from _damage(whole, damage)
    columns = [_measure(damaged, statistics), undamaged, real_figures(len(whole.labels)), reported_real()]
    rows = [
        [name, *("" if column.get(key) is None else f"{column[key]:{form}}" for column in columns)]
        for name, key, form in (
            ("Fréchet distance to the training images", "distance", ".2f"),
            ("Fréchet distance to the undamaged", "from_undamaged", ".2f"),
            ("Class accuracy", "class_accuracy", ".1%"),
            ("Precision", "precision", ".3f"),
            ("Recall", "recall", ".3f"),
        )
    ]
    return Redraw(rows, columns[0]["from_undamaged"], damaged.images, whole.images)


def _damage(whole: Pictures, damage: Damage) -> Generator[str, None, Pictures]:
    with TURNS.of_batch():
        images = damage.apply(whole.images)
    features, logits = yield from judge(images)
    return Pictures(images, whole.labels, features, logits)


def _measure(pictures: Pictures, undamaged: Statistics) -> dict:
    """Compute the figures of one column of the table."""
    precision, recall = precision_and_recall(pictures.features)
    return {
        "distance": distance(pictures.features, reference("train")),
        "from_undamaged": distance(pictures.features, undamaged),
        "class_accuracy": accuracy(pictures.logits, pictures.labels)[0],
        "precision": precision,
        "recall": recall,
    }


def find_damage(originals: Originals, source: object, kind: object, target: Any) -> Generator[str, None, Damage]:
    """Search the strength of one kind of damage that moves pictures by a Frechet distance, by halving its range.

    Args:
        originals: undamaged pictures.
        source: of these.
        kind: one of `KINDS`.
        target: one of `TARGETS`, the distance of the damaged pictures to the undamaged ones.

    Yields:
        A sentence after each turn.

    Raises:
        ValueError: another kind or target, or as in `Originals.of`.
    """
    for meaning, value, accepted in (("kind of damage", kind, KINDS), ("distance", target, TARGETS)):
        if isinstance(value, bool) or value not in accepted:
            raise ValueError(f"The {meaning} is {quoted(value)}; accepted are {', '.join(map(str, accepted))}.")
    whole, statistics, _ = yield from originals.without(source, 0)
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        damaged = yield from _damage(whole, _of_strength(str(kind), middle))
        nearer = distance(damaged.features, statistics) < target
        low, high = (middle, high) if nearer else (low, middle)
    return _of_strength(str(kind), high)


def _of_strength(kind: str, strength: float) -> Damage:
    """Make damage of a strength from 0, none, to 1, the most that the page offers."""
    return {
        "Blur": Damage(blur=round(strength * MAX_BLUR, 2)),
        "Noise": Damage(noise=round(strength * MAX_NOISE, 4)),
        "JPEG": Damage(quality=round(WHOLE - strength * (WHOLE - 1))),
    }[kind]
