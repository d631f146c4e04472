"""Show a command's result as a table on the terminal and JSON on disk."""

from collections.abc import Iterator
from typing import Literal, overload

from eval.cli.table import aligned
from eval.schema import SCHEMA, CommandResult, GuidanceResult, LatencyResult, check_result
from mobilediff.files import write_json

SHA_LENGTH = 12
APART = ("protocol", "samples", "intervals", "repeats")


def show_result(command: str, result: dict, path: str | None) -> None:
    """Print a result's figures, intervals and protocol, and then write it to `path`.

    Args:
        command: "eval." and the module's name.
        result: from a `measure_` function.
        path: a JSON file, or None.
    """
    print(figures_table(result))
    for part in ("samples", "protocol"):
        stated = "; ".join(f"{key} {value}" for key, value in _flat(result[part]))
        print(f"{part}: {stated}", flush=True)
    keep_result(command, result, path)


@overload
def checked_result(command: Literal["eval.guidance"], result: dict) -> GuidanceResult: ...
@overload
def checked_result(command: Literal["eval.latency"], result: dict) -> LatencyResult: ...
@overload
def checked_result(command: str, result: dict) -> CommandResult: ...
def checked_result(command: str, result: dict) -> CommandResult:
    """Return the model of a result; errors as in `check_result`."""
    return check_result(command, stated(command, result))


def keep_result(command: str, result: dict, path: str | None) -> None:
    """Check a result and write it to `path` if there is one; errors as in `check_result`."""
    checked_result(command, result)
    if path:
        write_json(path, stated(command, result))


def stated(command: str, result: dict) -> dict:
    """Put schema and command before a result, as its JSON has them."""
    return {"schema": SCHEMA, "command": command} | result


def figures_table(result: dict) -> str:
    """Tabulate figures, a line each: name, value, interval, spread over several sets of samples."""
    intervals, repeats = result.get("intervals", {}), result.get("repeats", {"seeds": []})
    sets = f"{len(repeats['seeds'])} sets: mean, std" if repeats["seeds"] else ""
    lines = [["figure", "value", "95 % interval", sets]]
    for key, value in _flat({key: value for key, value in result.items() if key not in APART}):
        if isinstance(value, str | list) or value is None:
            continue
        interval, spread = intervals.get(key), repeats.get(key)
        lines.append([
            key.replace("_", " "),
            f"{value:,}" if isinstance(value, int) else f"{value:.4f}",
            f"{interval['low']:.4f} to {interval['high']:.4f}" if interval else "",
            f"{spread['mean']:.4f}, {spread['std']:.4f}" if spread else "",
        ])  # fmt: skip
    return aligned(lines)


def _flat(values: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Flatten nested dictionaries, joining keys and cutting hashes."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value[:SHA_LENGTH] if key.endswith("sha256") and value else value
