"""Files that are written in one piece, and their names on a command line."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path):
    """Yields a temporary path beside `path` that takes its place when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_png(option: str, path: str | Path) -> None:
    """Refuse a file name for a picture.

    Raises:
        ValueError: it does not end in .png; names the option.
    """
    if Path(path).suffix != ".png":
        raise ValueError(f"{option} is {path}; accepted is a file that ends in .png")
