"""Which figures of two result files differ by more than their uncertainty.

python -m eval.report --compare before.json after.json

A figure with a confidence interval moved if the two intervals do not overlap; a latency moved if either median lies
beyond the other's 90th percentile. Figures of different extractors, references or machines are not compared, and
said so; so are rows that one file alone has. A distance of another number of samples has another bias and is not
compared either.
"""

from dataclasses import dataclass

# What must be equal for two figures of a section to be comparable.
SAME = {
    "distance": ("n", "extractor_sha256", "resize", "reference_sha256"),
    "quality": ("n", "extractor_sha256", "resize", "reference_sha256", "reference_n"),
    "nouns": ("extractor_sha256", "resize"),
    "clip": ("clip_sha256", "resize", "template"),
    "latency": ("device_name", "threads", "dtype", "batch_size"),
}
LATENCY_PARTS = ("network_call", "image")


@dataclass(frozen=True)
class Change:
    """One figure before and after.

    Attributes:
        model: the row.
        figure: the section and key.
        before, after: the values.
        verdict: "moved", "within", or why the two were not judged.
    """

    model: str
    figure: str
    before: float
    after: float
    verdict: str


def compare_results(before: dict, after: dict) -> list[Change]:
    """Every figure that both result files hold, in the order of the first.

    Args:
        before, after: from `eval.schema.read_results`.

    Raises:
        ValueError: there is no row that both have.
    """
    rows = [row for row in before["records"] if row in after["records"]]
    if not rows:
        raise ValueError(f"no row is in both: {sorted(before['records'])} and {sorted(after['records'])}")
    changes = []
    for row in rows:
        first, second = before["records"][row], after["records"][row]
        for section in SAME:
            if section in first and section in second:
                changes += _compare_section(row, section, first[section], second[section])
    return changes


def _compare_section(row: str, section: str, first: dict, second: dict) -> list[Change]:
    there, here = ({**one["protocol"], "n": one.get("n")} for one in (first, second))
    different = [key for key in SAME[section] if there.get(key) != here.get(key)]
    obstacle = f"not comparable: another {', '.join(different)}" if different else None
    if section == "latency":
        parts = [(part, first[part], second[part]) for part in LATENCY_PARTS if part in first and part in second]
        return [
            Change(
                row, f"latency {part} (ms)", one["median_ms"], two["median_ms"], obstacle or _latency_verdict(one, two)
            )
            for part, one, two in parts
        ]
    intervals = first.get("intervals", {}), second.get("intervals", {})
    keys = [key for key, value in first.items() if isinstance(value, float) and isinstance(second.get(key), float)]
    return [
        Change(row, f"{section} {key}", first[key], second[key], obstacle or _interval_verdict(key, *intervals))
        for key in keys
    ]


def _latency_verdict(one: dict, two: dict) -> str:
    beyond = two["median_ms"] > one["p90_ms"] or one["median_ms"] > two["p90_ms"]
    return "moved" if beyond else "within"


def _interval_verdict(key: str, first: dict, second: dict) -> str:
    if key not in first or key not in second:
        return "no interval"
    apart = first[key]["high"] < second[key]["low"] or second[key]["high"] < first[key]["low"]
    return "moved" if apart else "within"


def unmatched_rows(before: dict, after: dict) -> list[str]:
    """The rows that only one of two result files has, a line each."""
    first, second = before["records"], after["records"]
    lines = [f"{row}: only in the file before" for row in first if row not in second]
    return lines + [f"{row}: only in the file after" for row in second if row not in first]


def changes_table(changes: list[Change]) -> str:
    """The changes that are not within their uncertainty, a line each, and a line that counts them."""
    shown = [change for change in changes if change.verdict != "within"]
    lines = [f"{c.model:<36} {c.figure:<36} {c.before:>10.4g} -> {c.after:<10.4g} {c.verdict}" for c in shown]
    moved = sum(change.verdict == "moved" for change in changes)
    return "\n".join([*lines, f"{moved} of {len(changes)} figures moved beyond their uncertainty"])
