"""Draw the same eight seeds at every evaluation of a run.

The picture shows whether training sharpens samples or makes them alike.

python -m mobilediff.training.tools.seeds runs/one-step --classes horse ship --output seeds.png
"""

from pathlib import Path

import numpy as np
from PIL import Image

from mobilediff.captions import CLASS_NAMES
from mobilediff.command import command_parser, run_command
from mobilediff.files import atomic_path, check_picture_name

PADDING = 2  # of torchvision's make_grid, which drew the run's grids


def read_rows(run: Path, class_name: str) -> dict[int, np.ndarray]:
    """Cut the row of a class out of each of the run's grids.

    Returns:
        By step, uint8 [H, W, 3].

    Raises:
        FileNotFoundError: the run has drawn no grid.
        ValueError: an unknown class, or a grid that is not of the ten classes.
    """
    if class_name not in CLASS_NAMES:
        raise ValueError(f"class is {class_name!r}; accepted are {', '.join(CLASS_NAMES)}")
    files = sorted((run / "samples").glob("*.png"))
    if not files:
        raise FileNotFoundError(f"{run / 'samples'} holds no grids: was the run's sample_every above 0?")
    rows = {}
    for file in files:
        grid = np.asarray(Image.open(file).convert("RGB"))
        height, rest = divmod(len(grid) - PADDING, len(CLASS_NAMES))
        if rest:
            raise ValueError(f"{file} is {len(grid)} pixels high; accepted are grids of {len(CLASS_NAMES)} rows")
        top = CLASS_NAMES.index(class_name) * height
        rows[int(file.stem)] = grid[top : top + height + PADDING]
    return rows


def draw(run: Path, class_names: list[str], output: Path) -> None:
    """Draw each class in a panel, each evaluation as a row, into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [read_rows(run, name) for name in class_names]
    count, (height, width, _) = len(panels[0]), next(iter(panels[0].values())).shape
    size = (4 * len(panels), 4 * count * height / width + 0.4)
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axis, name, rows in zip(axes.flat, class_names, panels, strict=True):
        axis.imshow(np.concatenate(list(rows.values())), interpolation="nearest")
        axis.set(title=f"{name}, seeds 0 to 7", xticks=[])
        axis.set_yticks([(place + 0.5) * height for place in range(count)], [f"step {step}" for step in rows])
    with atomic_path(output) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def main(argv: list[str] | None = None) -> None:
    """Draw the run of the command line."""
    parser = command_parser("python -m mobilediff.training.tools.seeds", __doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--classes", nargs="+", default=["horse", "ship"], help="rows to show")
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    arguments = parser.parse_args(argv)
    check_picture_name("--output", arguments.output)
    draw(arguments.run, arguments.classes, arguments.output)


if __name__ == "__main__":
    run_command(main)
