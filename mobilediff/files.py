"""Write files and folders in one piece, read and write JSON, check file names."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends without an error.

    It lies beside `path`, in a folder that is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` when the block ends without an error.

    It has the name of `path` and lies in a hidden folder beside it. A link is followed: the folder that it points to
    is replaced. A kill between the last two renames leaves nothing at `path`, and both the old and the new folder,
    complete, in the hidden one.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
        new, old = Path(scratch, "new", path.name), Path(scratch, "old")
        new.mkdir(parents=True)
        yield new
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise


def write_json(path: str | Path, content: dict, allow_nan: bool = False) -> None:
    """Write JSON so that a reader sees the old file or the new one.

    Args:
        path: of the file; missing folders are made.
        content: JSON values.
        allow_nan: accept NaN and infinities, which configs of diffusers' schedulers hold and JSON does not have.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=allow_nan) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict:
    """Read a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON; the error names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def check_png(option: str, path: str | Path) -> None:
    """Refuse a picture's file name that does not end in .png.

    Args:
        option: of the command line, for the error.
        path: its value.

    Raises:
        ValueError: naming the option and its value.
    """
    if Path(path).suffix != ".png":
        raise ValueError(f"{option} is {path}; accepted is a file that ends in .png")
