"""Tabulate the report's records as Markdown, cost and quality, with a legend."""

from dataclasses import dataclass
from typing import Literal

from eval.extractors.judge import JUDGE
from eval.metrics.kernel import CMMD_SCALE, SIGMA
from eval.schema import Interval, Measured, OutsideDistance, Record, Samples, TimingProtocol
from mobilediff.model_card import markdown_text

BASELINE = "teacher"  # of the speeds
OUTSIDE_DISTANCES = {  # keys of the section of the two extractors, and their columns
    "frechet_distance_efficientnet": "Fréchet distance, outside (n = {n:,})",
    "frechet_distance_judge": "Fréchet distance, judge (n = {n:,})",
}
NOISE_STD = 0.1  # of the damaged images, as a fraction of the range 0..1
REAL, RECONSTRUCTED, DAMAGED = SCALE = (
    "CIFAR-10 test",
    "CIFAR-10 test, through the VAE",
    f"CIFAR-10 test, noise {NOISE_STD}",
)
GAUSSIAN, SLICED, INFINITE = "Gaussian kernel distance", "sliced Wasserstein", "Fréchet distance, n to infinity"
AUTHENTIC, COPYING = "AuthPct", "C_T"
IMAGE_COSTS = (
    ("macs_image", "MACs, image (M)", lambda macs: f"{macs / 1e6:,.0f}"),
    ("weights_bytes", "weights (MB)", lambda size: f"{size / 1e6:.1f}"),
    ("nfe", "NFE", str),
)


@dataclass(frozen=True)
class Cell:
    """Hold one figure of a table.

    Attributes:
        value: rows sort by it.
        text: as the tables show it, with the confidence interval.
        interval: the confidence interval, where the figure has one.
    """

    value: float
    text: str
    interval: Interval | None = None


def figures(record: Record) -> dict[str, dict[str, str]]:
    """Format a record's figures for the two tables, "cost" and "quality", by column title.

    Sections that were not measured have no columns. Where sections have different numbers of samples, `n` lists them
    in the order of the columns.
    """
    return {kind: {title: cell.text for title, cell in row.items()} for kind, row in record_cells(record).items()}


def record_cells(record: Record) -> dict[str, dict[str, Cell]]:
    """Collect a record's figures, with their values, for the two tables; columns as in `figures`."""
    return {"cost": _cost(record), "quality": _quality(record)}


def _cost(record: Record) -> dict[str, Cell]:
    cells = {}
    if size := record.size:
        cells["params (M)"] = Cell(size.params_total / 1e6, f"{size.params_total / 1e6:.2f}")
        cells["of these, network (M)"] = Cell(size.params_unet / 1e6, f"{size.params_unet / 1e6:.2f}")
        cells["MACs, network call (M)"] = Cell(size.macs_network_call / 1e6, f"{size.macs_network_call / 1e6:,.0f}")
        for key, title, form in IMAGE_COSTS:
            if (value := getattr(size, key)) is not None:  # a peer may be timed by its network call alone
                cells[title] = Cell(value, form(value))
    if latency := record.latency:
        for timing, title in ((latency.network_call, "network call (ms)"), (latency.image, "image (ms)")):
            if timing:
                cells[title] = Cell(timing.median_ms, f"{timing.median_ms:.1f} / {timing.p90_ms:.1f}")
        if (faster := latency.times_faster) is not None:
            cells[f"times faster than {latency.baseline}"] = Cell(faster, f"{faster:.1f}")
    if record.throughput:
        largest = record.throughput.batches[-1]
        size, image = largest.protocol.batch_size, largest.image
        rate, memory = image.images_per_second, image.peak_memory_bytes
        cells[f"images/s, batch {size}"] = Cell(rate, f"{rate:.1f}")
        cells[f"peak memory, batch {size} (MB)"] = Cell(memory, f"{memory / 1e6:.0f}")
    return cells


def _quality(record: Record) -> dict[str, Cell]:
    cells = {}
    sections = [record.frechet_distance, record.nouns, record.clip, record.quality]
    if counts := [section.n for section in sections if section]:
        cells["n"] = Cell(counts[0], " / ".join(dict.fromkeys(f"{count:,}" for count in counts)))
    if distance := record.frechet_distance:
        cells["Fréchet distance"] = _measured(distance, "frechet_distance_judge", "{:.2f}")
        cells["class accuracy"] = _measured(distance, "class_accuracy", "{:.1%}")
    for other in record.other_distances.values():
        cells[other.label] = _measured(other, other.figure, "{:.2f}")
    if outside := record.outside:
        for key, title in OUTSIDE_DISTANCES.items():
            cells[title.format(n=outside.n)] = _measured(outside, key, "{:.2f}")
    if nouns := record.nouns:
        for key, title in (("noun_top1", "noun top-1"), ("noun_top5", "noun top-5")):
            cells[title] = _measured(nouns, key, "{:.1%}")
    if record.clip:
        cells["CLIP score"] = _measured(record.clip, "clip_score", "{:.2f}")
    if quality := record.quality:
        cells["kernel distance"] = _measured(quality, "kernel_distance_mean", "{:.3f}")
        for name in ("precision", "recall", "density", "coverage"):
            cells[name] = Cell(getattr(quality, name), f"{getattr(quality, name):.3f}")
        for title, value, form in (
            (GAUSSIAN, quality.gaussian_kernel_distance, "{:.3f}"),
            (SLICED, quality.sliced_wasserstein, "{:.3f}"),
            (INFINITE, quality.frechet_distance_infinity, "{:.2f}"),
            ("seed distance", quality.seed_distance, "{:.2f}"),
            ("near copies", quality.copies.copy_fraction, "{:.1%}"),
            (AUTHENTIC, quality.copies.authentic_fraction, "{:.1%}"),
            (COPYING, quality.copies.c_t, "{:.1f}"),
        ):
            if value is not None:
                cells[title] = Cell(value, form.format(value))
    return cells


def _measured(section: Measured, key: str, form: str) -> Cell:
    return Cell(getattr(section, key), with_interval(section, key, form), section.intervals.get(key))


def with_interval(section: Measured, key: str, form: str) -> str:
    """Format a figure and, where it has one, its confidence interval."""
    text = form.format(getattr(section, key))
    if interval := section.intervals.get(key):
        text += f" ({form.format(interval.low)} to {form.format(interval.high)})"
    return text


def table(records: dict[str, Record]) -> str:
    """Tabulate all records and explain the columns: models by cost, then peers, the rows for scale last."""
    rows = ordered(records)
    tables = [one_table(kind, rows, records) for kind in ("cost", "quality")]
    return "\n".join([*tables, *legend([records[name] for name in rows])])


def ordered(records: dict[str, Record]) -> list[str]:
    """List the names of the records that have figures, in the order of the tables."""
    return sorted(
        (name for name, record in records.items() if record.figures),
        key=lambda name: (
            SCALE.index(name) if name in SCALE else -1,
            records[name].peer is not None,
            -_macs_image(records[name]),
        ),
    )


def _macs_image(record: Record) -> int:
    return (record.size and record.size.macs_image) or 0


def shipped_models(records: dict[str, Record]) -> list[str]:
    """List the models whose weights are in `checkpoints/`, in the order of the tables."""
    return [name for name in ordered(records) if records[name].shipped]


def one_table(kind: Literal["cost", "quality"], rows: list[str], records: dict[str, Record]) -> str:
    """Tabulate the rows that have figures of a kind, and add an empty line."""
    cells = {name: (records[name].figures or {}).get(kind, {}) for name in rows}
    cells = {name: row for name, row in cells.items() if row}
    columns = list(dict.fromkeys(title for row in cells.values() for title in row))
    if not columns:
        return ""
    lines = [
        [markdown_text(name) + _note(records[name]), *(row.get(title, "") for title in columns)]
        for name, row in cells.items()
    ]
    return markdown_table(["", *columns], lines) + "\n"


def _note(record: Record) -> str:
    if record.peer is not None:
        return " (random weights)"
    return " (its weights are not in `checkpoints/`)" if record.shipped is False else ""


def markdown_table(titles: list[str] | tuple[str, ...], rows: list[list[str]]) -> str:
    """Lay out a Markdown table, the first column left-aligned, the others right-aligned."""
    lines = [
        "|".join(["", *(f" {title} " if title else " " for title in titles), ""]),
        "|---|" + "---:|" * (len(titles) - 1),
    ]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def waiting(protocol: TimingProtocol) -> str:
    """State how the threads of a timing waited; kept timings may not say."""
    return f"OMP_WAIT_POLICY {protocol.wait_policy or 'not stated'}"


def outside_meaning(outside: OutsideDistance) -> str:
    """Explain the two distances of equally many images of every row."""
    protocol = outside.protocol
    return (
        f"Outside: the distance by features of {protocol.extractor} ({protocol.extractor_sha256[:12]}), trained on "
        "ImageNet, from which nothing here learned, not FID; judge: by the judge's, of the same images. Both are "
        f"against {protocol.reference}, and higher than with more images: compare within a column. One model draws "
        "better than another only where both say so."
    )


def ways_of_drawing(samples: list[Samples]) -> str:
    """State in what each model's samples are drawn; an empty text without models."""
    ways: dict[str, list[str]] = {}
    for one in samples:
        if one.model and one.dtype:
            way = f"{one.dtype} under torch.compile" if one.compiled else one.dtype
            ways.setdefault(way, []).append(one.model)
    return "; ".join(f"{way}: {', '.join(models)}" for way, models in ways.items())


def legend(records: list[Record]) -> list[str]:
    """Explain the columns, from the protocols in the records."""
    lines = []
    if timed := [record.latency.protocol for record in records if record.latency]:
        protocol = timed[0]
        lines.append(
            f"Latency: batch {protocol.batch_size}, {protocol.dtype}, {protocol.threads} threads of "
            f"{protocol.device_name} ({waiting(protocol)}), torch {protocol.versions['torch']}, median / 90th "
            f"percentile, of {protocol.timed}, the models taking turns; network "
            "call is one sample without guidance, image is the whole pipeline at its default steps and guidance. The "
            f"machine's matrix product reaches {protocol.matrix_peak_fp32_gflops:.0f} GFLOP/s in fp32 and "
            f"{protocol.matrix_peak_bf16_gflops:.0f} in bf16."
        )
    if batches := [record.throughput.batches[-1].protocol for record in records if record.throughput]:
        lines.append(
            f"At batch {batches[0].batch_size}: the whole pipeline in {batches[0].dtype}, "
            f"{batches[0].threads} threads ({waiting(batches[0])}), median of {batches[0].rounds} runs or more; peak "
            "memory: allocated by a call beyond the weights."
        )
    if sources := sorted({record.peer for record in records if record.peer is not None}):
        lines.append(
            f"Random weights: built from the public configuration of {', '.join(sources)}, since time does not depend "
            "on the weights."
        )
    distances = [record.frechet_distance for record in records if record.frechet_distance]
    if distances:
        protocol = distances[0].protocol
        lines.append(
            f"Fréchet distance: features of {JUDGE} ({protocol.extractor_sha256[:12]}), not FID, against "
            f"{protocol.reference} (n = {protocol.reference_n:,}); lower is better, the floor (test set against "
            f"training set) is {distances[0].floor:.2f}. Class accuracy: of the same classifier. In brackets: 95 % "
            "intervals by bootstrap over the samples."
        )
    outside = [record.outside for record in records if record.outside]
    if outside:
        lines.append(outside_meaning(outside[0]))
    if drawn := ways_of_drawing([distance.samples for distance in distances]):
        lines.append(f"Samples: the classes' prompts in turn, one seed an image, drawn in {drawn}.")
    if drawn := ways_of_drawing([distance.samples for distance in outside]):
        lines.append(f"Of outside and judge beside it, the first seeds, drawn in {drawn}.")
    if nouns := [record.nouns for record in records if record.nouns]:
        lines.append(
            f"Noun top-1 and top-5: the noun is the first, or one of the first five, of the {nouns[0].nouns} that "
            "the same classifier knows; on samples of prompts that have each noun as often as the test images do."
        )
    if sets := [record.quality for record in records if record.quality]:
        first, copies = sets[0], sets[0].copies
        lines.append(
            "Of the same features, at equal numbers of samples and training images: kernel distance "
            f"({first.subsets} subsets), precision, recall, density and coverage (k = {first.neighbours}); seed "
            "distance, the mean between samples of one prompt; near copies, the fraction of the first "
            f"{copies.n:,} samples that are nearer to "
            f"one of {copies.n_training:,} training images than all but {copies.copy_percentile:.0f} % of the "
            "test images are."
        )
    if newer := [quality for quality in sets if quality.sliced_wasserstein is not None]:
        lines.append(
            f"{GAUSSIAN}: of unit features, sigma {SIGMA:.0f}, x {CMMD_SCALE:.0f}, as CMMD is of CLIP's; {SLICED}: "
            f"squared, over {newer[0].directions:,} random directions, as MIND is of Inception's features; "
            f"{INFINITE}: where a line through the distances of fewer samples over 1 / n ends; {AUTHENTIC}: of the "
            "samples among which copies are looked for, those whose nearest training image has another training "
            f"image nearer to it; {COPYING}: a z-score, below -3 where these samples are nearer to training images "
            "than test images are."
        )
    if scored := [record.clip for record in records if record.clip]:
        protocol, template = scored[0].protocol, scored[0].samples.template
        lines.append(f'CLIP score: {protocol.clip_model}, cosine x 100, prompts "{template}".')
    return [line for pair in zip(lines, [""] * len(lines), strict=True) for line in pair][:-1]
