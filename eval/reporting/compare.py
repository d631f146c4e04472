"""Compare the figures of two result files by their uncertainty.

python -m eval.report --compare before.json after.json

A figure with a confidence interval moved if the two intervals do not overlap; a latency moved if either median lies
beyond the other's 90th percentile. Figures of different extractors, references or machines are listed as not
comparable, and so are distances of different numbers of samples, which have different biases; means over images,
such as accuracies, have none.
"""

from dataclasses import dataclass

from eval.cli.table import aligned
from eval.schema import Latency, Measured, Results, Timing

# What must be equal for two figures of a section to be comparable.
SAME = {
    "frechet_distance": ("n", "extractor_sha256", "resize", "reference_sha256"),
    "quality": ("n", "extractor_sha256", "resize", "reference_sha256", "reference_n"),
    "nouns": ("extractor_sha256", "resize"),
    "outside": ("n", "extractor_sha256", "judge_sha256", "resize", "reference_sha256"),
    "clip": ("clip_sha256", "resize", "template"),
    "latency": ("device_name", "threads", "wait_policy", "neighbours", "dtype", "batch_size"),
}
# Means over images: their expectation is that of any number of images.
UNBIASED = ("class_accuracy", "noun_top1", "noun_top5", "clip_score")
LATENCY_PARTS = ("network_call", "image")


@dataclass(frozen=True)
class Change:
    """Compare one figure before and after.

    Attributes:
        model: the row.
        figure: the section and key.
        before, after: the values.
        verdict: "moved", "within", "no interval", or the reason why the two are not comparable.
    """

    model: str
    figure: str
    before: float
    after: float
    verdict: str


def compare_results(before: Results, after: Results) -> list[Change]:
    """Compare every figure that both result files hold, in the order of the first.

    Args:
        before, after: from `eval.schema.read_results`.

    Raises:
        ValueError: there is no row that both have.
    """
    rows = [row for row in before.records if row in after.records]
    if not rows:
        raise ValueError(f"no row is in both: {sorted(before.records)} and {sorted(after.records)}")
    changes = []
    for row in rows:
        for section in SAME:
            first, second = (getattr(results.records[row], section) for results in (before, after))
            if first and second:
                changes += compare_section(row, section, first, second)
    return changes


def compare_section(row: str, section: str, first: Measured | Latency, second: Measured | Latency) -> list[Change]:
    """Compare the figures that two measurements of a section of `SAME` share."""
    conditions = [dict(one) | dict(one.protocol) for one in (first, second)]
    different = [key for key in SAME[section] if conditions[0][key] != conditions[1][key]]
    if isinstance(first, Latency) or isinstance(second, Latency):
        parts = [(part, getattr(first, part), getattr(second, part)) for part in LATENCY_PARTS]
        return [
            Change(
                row,
                f"latency {part} (ms)",
                one.median_ms,
                two.median_ms,
                _obstacle(different) or _latency_verdict(one, two),
            )
            for part, one, two in parts
            if one and two
        ]
    figures = [(key, value, getattr(second, key, None)) for key, value in first if isinstance(value, float)]
    return [
        Change(
            row,
            f"{section} {key}",
            one,
            two,
            _obstacle([name for name in different if name != "n" or key not in UNBIASED])
            or _interval_verdict(first, second, key),
        )
        for key, one, two in figures
        if isinstance(two, float)
    ]


def _obstacle(different: list[str]) -> str | None:
    return f"not comparable: another {', '.join(different)}" if different else None


def _latency_verdict(one: Timing, two: Timing) -> str:
    beyond = two.median_ms > one.p90_ms or one.median_ms > two.p90_ms
    return "moved" if beyond else "within"


def _interval_verdict(first: Measured, second: Measured, key: str) -> str:
    intervals = [one.intervals[key] for one in (first, second) if key in one.intervals]
    if len(intervals) < 2:
        return "no interval"
    one, two = intervals
    return "moved" if one.high < two.low or two.high < one.low else "within"


def unmatched_rows(before: Results, after: Results) -> list[str]:
    """List the rows that only one of two result files has, a line each."""
    first, second = before.records, after.records
    lines = [f"{row}: only in the file before" for row in first if row not in second]
    return lines + [f"{row}: only in the file after" for row in second if row not in first]


def changes_table(changes: list[Change]) -> str:
    """Tabulate the changes beyond their uncertainty, a line each, and count them."""
    rows = [
        [change.model, change.figure, f"{change.before:.4g}", f"{change.after:.4g}", change.verdict]
        for change in changes
        if change.verdict != "within"
    ]
    moved = sum(change.verdict == "moved" for change in changes)
    count = f"{moved} of {len(changes)} figures moved beyond their uncertainty"
    return "\n".join([aligned([["row", "figure", "before", "after", "verdict"], *rows]), count] if rows else [count])
