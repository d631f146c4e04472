"""Measure pictures by the judge in short turns, beside CIFAR-10's real images at the same number."""

import threading
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache

import torch

from eval.extractors.judge import JUDGE, JudgeFeatureExtractor, judge_extractor
from eval.extractors.statistics import reference_statistics
from eval.measures.quality import MAX_COPY_QUERIES
from eval.metrics.accuracy import top_k_accuracy, top_k_hits
from eval.metrics.bootstrap import fraction_interval, frechet_interval, interval_at_n
from eval.metrics.frechet import Statistics, feature_statistics, frechet_distance
from eval.metrics.manifold import NEIGHBOURS, manifold_metrics
from eval.metrics.nearest import compare_nearest, nearest_training
from eval.reporting.tables import REAL
from mobilediff.demo.environment import RESULTS
from mobilediff.demo.service.reported import reported_records
from mobilediff.demo.service.turns import TURNS

# Pictures a turn.
JUDGED = SEARCHED = 100
# Precision and recall depend on the number of pictures, and their work grows with its square.
MAX_ROWS = 1000
MAX_NEAR = 10  # near copies that are named

COLUMNS = ("Figure", "Your pictures", "95 % interval", "Real images, as many", "Real images, all")


@dataclass(frozen=True)
class Figures:
    """Hold a table of figures, each row with as many texts as `COLUMNS`, and sentences that explain it."""

    rows: list[list[str]]
    notes: list[str]


@lru_cache
def _judge() -> JudgeFeatureExtractor:
    return JudgeFeatureExtractor(JUDGE, ["features", "class_logits"])


@lru_cache
def reference(split: str) -> Statistics:
    """Load the shipped statistics of a split of CIFAR-10, "train" or "test"."""
    return reference_statistics(judge_extractor(), split)


def fewest_pictures() -> int:
    """Return the number of pictures that a Frechet distance needs, one more than there are features."""
    return len(reference("train").mu) + 1


def judge(images: torch.Tensor) -> Generator[str, None, tuple[torch.Tensor, torch.Tensor]]:
    """Extract features and class logits of images in turns.

    Args:
        images: uint8 [N, 3, 32, 32].

    Yields:
        A sentence after each turn.

    Returns:
        Features, float64 [N, F], and class logits, float32 [N, 10].
    """
    batches, done = [], 0
    for batch in images.split(JUDGED):
        with TURNS.of_batch(), torch.no_grad():
            batches.append(_judge()(batch))
        done += len(batch)
        yield f"Judged {done:,} of {len(images):,} pictures."
    features, logits = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return features, logits


def distance(features: torch.Tensor, other: Statistics) -> float:
    """Compute the Frechet distance of features, [N, F], in one turn; errors as in `feature_statistics`."""
    with TURNS.of_batch():
        return frechet_distance(feature_statistics(features), other)


def distance_interval(features: torch.Tensor, cancelled: threading.Event) -> dict:
    """Estimate the interval of the Frechet distance to the training images, in turns.

    Args:
        features: [N, F].
        cancelled: ends the computation once it is set.

    Returns:
        As `interval_at_n`, the low end at least 0.

    Raises:
        Cancelled: `cancelled` was set.
    """
    with TURNS.of_long_work(cancelled):
        interval = interval_at_n(frechet_interval(features, reference("train")))
    return interval | {"low": max(interval["low"], 0.0)}


def some_rows(features: torch.Tensor) -> torch.Tensor:
    """Choose `MAX_ROWS` rows at random, seed 0, as the pictures of a folder may lie in the order of their classes."""
    return features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:MAX_ROWS]]


def precision_and_recall(features: torch.Tensor) -> tuple[float, float]:
    """Compute precision and recall of `some_rows` against as many training images, in one turn.

    Raises:
        ValueError: as in `manifold_metrics`.
    """
    rows = some_rows(features)
    with TURNS.of_batch():
        figures = manifold_metrics(reference("train").kept_features()[: len(rows)], rows, k=NEIGHBOURS)
    return figures["precision"], figures["recall"]


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, dict | None]:
    """Compute the class accuracy, and its interval for two pictures or more; arguments as in `top_k_hits`."""
    interval = fraction_interval(top_k_hits(logits, labels)) if len(labels) > 1 else None
    return top_k_accuracy(logits, labels), interval


@lru_cache
def _training() -> torch.Tensor:
    return reference("train").kept_features().double()


@lru_cache
def _test_distances() -> torch.Tensor:
    return torch.cat([_nearest(rows) for rows in reference("test").kept_features()[:MAX_COPY_QUERIES].split(SEARCHED)])


def _nearest(rows: torch.Tensor) -> torch.Tensor:
    with TURNS.of_batch():
        return nearest_training(rows, _training())[0]


def near_copies(features: torch.Tensor) -> Generator[str, None, dict]:
    """Search the nearest of the training images whose features ship, the first 10,000 of 50,000, in turns.

    Args:
        features: [N, F].

    Yields:
        A sentence after each turn.

    Returns:
        The figures of `compare_nearest`, with `distances`, float64 [N], and `n_training`.
    """
    distances = []
    for rows in features.split(SEARCHED):
        distances.append(_nearest(rows))
        done = SEARCHED * (len(distances) - 1) + len(rows)
        yield f"Searched for copies of {done:,} of {len(features):,} pictures."
    found = torch.cat(distances)
    return compare_nearest(found, _test_distances()) | {"distances": found, "n_training": len(_training())}


@lru_cache(maxsize=256)
def real_figures(n: int) -> dict:
    """Measure the first `n` of CIFAR-10's test images against the training images.

    Args:
        n: up to the number whose features ship.

    Returns:
        `distance`, None for too few, and `precision` and `recall`, None for `NEIGHBOURS` images or fewer.
    """
    features = reference("test").kept_features()[:n].double()
    precision, recall = precision_and_recall(features) if n > NEIGHBOURS else (None, None)
    enough = n >= fewest_pictures()
    return {
        "distance": distance(features, reference("train")) if enough else None,
        "precision": precision,
        "recall": recall,
    }


def reported_real() -> dict:
    """Read the reported figures of CIFAR-10's whole test set.

    Returns:
        `distance`, `class_accuracy`, `precision` and `recall`; none without docs/results.json.
    """
    record = reported_records(RESULTS).get(REAL)
    if record is None or record.frechet_distance is None or record.quality is None:
        return {}
    section = record.frechet_distance.model_dump()
    return {
        "distance": section[judge_extractor().result_key],
        "class_accuracy": section["class_accuracy"],
        "precision": record.quality.precision,
        "recall": record.quality.recall,
    }


def measure_pictures(
    images: torch.Tensor, labels: list[int], names: list[str], cancelled: threading.Event
) -> Generator[str, None, Figures]:
    """Measure pictures in turns, beside CIFAR-10's test images.

    A figure that the number of pictures or missing labels do not allow is left out, and a note says so.

    Args:
        images: uint8 [N, 3, 32, 32].
        labels: class indices, -1 where not known, [N].
        names: of the pictures, [N].
        cancelled: ends the work once it is set.

    Yields:
        A sentence after each turn.

    Raises:
        Cancelled: `cancelled` was set.
    """
    rows, notes, n = [], [], len(images)
    features, logits = yield from judge(images)
    known = torch.tensor(labels) >= 0
    real, reported = real_figures(n), reported_real()
    if n >= fewest_pictures():
        value = distance(features, reference("train"))
        yield "The interval of the distance is estimated."
        interval = distance_interval(features, cancelled)
        rows.append(_row("Fréchet distance", value, interval, real["distance"], reported.get("distance"), ".2f"))
    else:
        dim = fewest_pictures() - 1
        notes.append(
            f"No Fréchet distance: it compares means and covariances of {dim} features, which needs at least "
            f"{dim + 1} pictures; there {'is' if n == 1 else 'are'} {n}."
        )
    if n > NEIGHBOURS:
        for name, value in zip(("precision", "recall"), precision_and_recall(features), strict=True):
            rows.append(_row(name.capitalize(), value, None, real[name], reported.get(name), ".3f"))
        if n > MAX_ROWS:
            notes.append(f"Precision and recall are of {MAX_ROWS:,} pictures, taken at random.")
    else:
        notes.append(f"No precision and recall: they need at least {NEIGHBOURS + 1} pictures.")
    if known.any():
        value, interval = accuracy(logits[known], torch.tensor(labels)[known])
        rows.append(_row("Class accuracy", value, interval, None, reported.get("class_accuracy"), ".1%"))
        if not known.all():
            notes.append(f"Class accuracy is of the {int(known.sum()):,} pictures with a label.")
    else:
        notes.append("No class accuracy: it needs labels, which are folders of a zip named like the classes.")
    found = yield from near_copies(features)
    rows.append(_row("Near copies", found["copy_fraction"], None, found["copy_percentile"] / 100, None, ".1%"))
    return Figures(rows, notes + _copy_notes(found, names))


def _row(
    name: str, value: float, interval: dict | None, real: float | None, reported: float | None, form: str
) -> list:
    between = f"{interval['low']:{form}} to {interval['high']:{form}}" if interval else ""
    return [name, f"{value:{form}}", between, *("" if one is None else f"{one:{form}}" for one in (real, reported))]


def _copy_notes(found: dict, names: list[str]) -> list[str]:
    """Say how near copies were searched, and name the nearest."""
    near = (found["distances"] <= found["copy_threshold"]).nonzero().flatten().tolist()
    near.sort(key=found["distances"].tolist().__getitem__)
    notes = [
        "Near copies lie nearer to a training image, in the judge's features, than "
        f"{100 - found['copy_percentile']:.0f} % of real test images do. Searched are the {found['n_training']:,} "
        f"training images whose features ship, of {reference('train').n:,}: a copy of another one is not found."
    ]
    if near:
        more = f" and {len(near) - MAX_NEAR:,} more" if len(near) > MAX_NEAR else ""
        notes.append(f"The nearest: {', '.join(names[index] for index in near[:MAX_NEAR])}{more}.")
    return notes
