"""Write the README's first screen: the claim in a sentence, the shipped models in a table."""

import textwrap
from dataclasses import dataclass
from typing import TypeVar

from eval.reporting.tables import BASELINE, OUTSIDE_DISTANCES, REAL, markdown_table, shipped_models, with_interval
from eval.schema import JudgeDistance, Latency, OutsideDistance, Record, Size, Timing, TimingProtocol

CLAIMED = "student-1step"
COLUMNS = (
    "network calls an image",
    "weights (MB)",
    "image (ms)",
    "times faster",
    "Fréchet distance",
    "class accuracy",
)

T = TypeVar("T")


def measured(value: T | None, name: str, key: str) -> T:
    """Return a value of a row's record.

    Raises:
        ValueError: it has not been measured.
    """
    if value is None:
        raise ValueError(f"{name} has no {key}: measure it with python -m eval.report")
    return value


@dataclass(frozen=True)
class Row:
    """Hold the figures of a shipped model that the first screen shows."""

    name: str
    size: Size
    weights_bytes: int
    latency: Latency
    image: Timing
    times_faster: float
    distance: JudgeDistance
    outside: OutsideDistance | None

    @classmethod
    def of(cls, records: dict[str, Record], name: str) -> "Row":
        """Take the figures of a row.

        Raises:
            ValueError: one has not been measured, or the model was not timed beside the teacher.
        """
        record = records.get(name, Record())
        size, latency = measured(record.size, name, "size"), measured(record.latency, name, "latency")
        if latency.times_faster is None:
            raise ValueError(f"{name} was not timed beside the {BASELINE}: give eval.report both in --models")
        return cls(
            name,
            size,
            measured(size.weights_bytes, name, "weights_bytes"),
            latency,
            measured(latency.image, name, "latency of an image"),
            latency.times_faster,
            measured(record.frechet_distance, name, "frechet_distance"),
            record.outside,
        )

    @property
    def megabytes(self) -> str:
        """Format the size of the weights in MB."""
        return f"{self.weights_bytes / 1e6:.1f}"

    @property
    def milliseconds(self) -> str:
        """Format the median time of an image in ms."""
        return f"{self.image.median_ms:.1f}"

    @property
    def cells(self) -> list[str]:
        """Format the name and the figures of `COLUMNS`."""
        return [
            self.name,
            str(self.size.nfe),
            self.megabytes,
            self.milliseconds,
            f"{self.times_faster:.1f}",
            with_interval(self.distance, "frechet_distance_judge", "{:.2f}"),
            with_interval(self.distance, "class_accuracy", "{:.1%}"),
        ]

    def outside_cells(self, n: int) -> list[str]:
        """Format the distances of `n` samples under both extractors, empty where they were not measured."""
        if self.outside is None or self.outside.n != n:
            return [""] * len(OUTSIDE_DISTANCES)
        return [with_interval(self.outside, key, "{:.2f}") for key in OUTSIDE_DISTANCES]


def claim(records: dict[str, Record]) -> str:
    """State steps, megabytes, milliseconds and speed-up of the one-step student, and nothing of its quality.

    Raises:
        ValueError: a figure in it has not been measured.
    """
    student, baseline = Row.of(records, CLAIMED), Row.of(records, BASELINE)
    steps = student.size.num_inference_steps
    text = (
        f"mobilediff draws a 32 x 32 picture from a prompt in {'one step' if steps == 1 else f'{steps} steps'}: "
        f"{student.megabytes} MB of weights, {student.milliseconds} ms on "
        f"{processor(student.latency.protocol)}, {student.times_faster:.0f} times faster than its "
        f"{student.latency.baseline} in {baseline.size.num_inference_steps} steps, all of it trained on CIFAR-10 "
        "alone."
    )
    return textwrap.fill(text, 119)


def headline(records: dict[str, Record]) -> str:
    """Tabulate the shipped models, and explain the columns and samples below.

    The distances of equally many samples under both extractors are there where a model has them.

    Raises:
        ValueError: a figure in it has not been measured.
    """
    rows = [Row.of(records, name) for name in shipped_models(records)]
    real = measured(records.get(REAL, Record()).frechet_distance, REAL, "frechet_distance")
    distance, protocol = rows[0].distance, rows[0].latency.protocol
    meanings = (
        "at the default steps; a guided step makes two.",
        "text encoder, network and decoder, on disk.",
        f"median of the whole pipeline, batch {protocol.batch_size}, {protocol.dtype}, on "
        f"{processor(protocol)}; the embeddings of the prompt are kept from a call before.",
        f"than the {BASELINE}, all models taking turns on one machine.",
        f"of the features of this project's own classifier against {distance.protocol.reference}, not FID; "
        f"lower is better, the test images have {distance.floor:.2f}.",
        f"samples that this classifier takes for the class asked for; of the test images {real.class_accuracy:.1%}.",
    )
    columns, cells = dict(zip(COLUMNS, meanings, strict=True)), [row.cells for row in rows]
    if outside := [row.outside for row in rows if row.outside]:
        columns |= outside_columns(outside[0], records[REAL].outside)
        cells = [row.cells + row.outside_cells(outside[0].n) for row in rows]
    table = markdown_table(("checkpoint", *columns), cells)
    legend = [f"- **{column}**: {meaning}" for column, meaning in columns.items()]
    return "\n".join([table, "", *legend, "", sample_counts({row.name: row.distance.n for row in rows})])


def outside_columns(outside: OutsideDistance, real: OutsideDistance | None) -> dict[str, str]:
    """Explain the columns of equally many samples under both extractors, with the test images' distances."""
    meanings = (
        f"of the features of {outside.protocol.extractor}, trained on ImageNet, from which nothing here learned",
        "of this project's own classifier, of the same samples; one model draws better than another only where both "
        "say so",
    )
    columns = {}
    for (key, title), meaning in zip(OUTSIDE_DISTANCES.items(), meanings, strict=True):
        there = f"; as many test images have {getattr(real, key):.2f}" if real and real.n == outside.n else ""
        columns[title.format(n=outside.n)] = f"{meaning}{there}."
    return columns


def processor(protocol: TimingProtocol) -> str:
    """Name the threads and the processor of a timing, without trade marks."""
    return f"{protocol.threads} threads ({protocol.device_name.replace('(R)', '')})"


def sample_counts(counts: dict[str, int]) -> str:
    """State the number of samples of the rows, and each row that has another."""
    common = max(counts.values(), key=lambda count: (list(counts.values()).count(count), count))
    others = [f"{name} {count:,}" for name, count in counts.items() if count != common]
    exceptions = f" but {', '.join(others)}: the distance of fewer samples is biased upward" if others else ""
    return f"{common:,} samples a row{exceptions}. 95% bootstrap intervals in brackets."
