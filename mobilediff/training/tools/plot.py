"""Plot the curves of runs from their `stats.jsonl`.

python -m mobilediff.training.tools.plot runs/teacher --output teacher.png
"""

import json
from pathlib import Path

from mobilediff.command import command_parser, run_command
from mobilediff.files import atomic_path, check_picture_name

COLUMNS = 4
HIDDEN = ("step", "images", "images_per_second")


def read_stats(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Read each logged value of a run against images seen.

    Returns:
        By name, the images seen and the values, in the order of the log.

    Raises:
        FileNotFoundError: the folder holds no `stats.jsonl`.
    """
    file = run / "stats.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"{run} holds no stats.jsonl: is it a run folder?")
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if name not in HIDDEN:
                images, values = curves.setdefault(name, ([], []))
                images.append(record["images"])
                values.append(value)
    return curves


def plot(runs: list[Path], output: Path) -> None:
    """Plot each logged value in a panel, a line for each run, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stats = {run.name: read_stats(run) for run in runs}
    names = sorted({name for curves in stats.values() for name in curves})
    rows, columns = -(-len(names) // COLUMNS), min(COLUMNS, len(names))
    figure, axes = pyplot.subplots(rows, columns, figsize=(4 * columns, 3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        for run, curves in stats.items():
            if name in curves:
                axis.plot(*curves[name], label=run, linewidth=1)
        axis.set(title=name, xlabel="images seen")
        axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
        axis.legend()
    with atomic_path(output) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def main() -> None:
    """Plot the runs of the command line."""
    parser = command_parser("python -m mobilediff.training.tools.plot", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    arguments = parser.parse_args()
    check_picture_name("--output", arguments.output)
    plot(arguments.runs, arguments.output)


if __name__ == "__main__":
    run_command(main)
