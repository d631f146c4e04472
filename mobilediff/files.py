"""Write files and folders in one piece, read and write JSON, check file names."""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def files_below(folder: str | Path) -> list[Path]:
    """List the files of a folder and of its folders, those behind links too, sorted.

    Raises:
        ValueError: a link leads to a folder that it lies in.
    """
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        for path in (Path(place, name) for name in folders):
            if path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve()):
                raise ValueError(f"{path} is a link to a folder that it lies in: it has no end")
        found += [path for name in names if (path := Path(place, name)).is_file()]
    return sorted(found)


def _behind_links(path: str | Path) -> Path:
    try:
        return Path(path).resolve()
    except RuntimeError as error:  # an OSError in later versions of Python
        raise OSError(f"{path} is a link that leads to itself") from error


def writable_file(path: str | Path) -> Path:
    """Find the file that a path stands for, behind its links, and refuse one that cannot be written.

    Raises:
        OSError: it is no regular file, a link without end, is write-protected, or nothing can be written beside it.
    """
    file = _behind_links(path)
    if file.is_dir() or not file.name:
        raise IsADirectoryError(f"{path} is a folder; accepted is a file")
    if file.exists():
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise OSError(f"{path} is a device or a pipe; accepted is a file")
        if not mode & 0o222:
            raise PermissionError(f"{path} is write-protected: take another file, or permit writing")
    _try_beside(file)
    return file


def replaceable_folder(path: str | Path) -> Path:
    """Find the folder that a path stands for, behind its links, and refuse one that cannot be replaced.

    Raises:
        OSError: it is a file, a mount point or a link without end, or nothing can be written beside it.
    """
    folder = _behind_links(path)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{path} is a file; accepted is a folder")
    if os.path.ismount(folder):
        raise OSError(f"{folder} is a mount point and cannot be replaced: take a folder inside it")
    _try_beside(folder)
    return folder


def _try_beside(path: Path) -> None:
    """Write a file beside a path, or where its missing folders would be made, and remove it."""
    there = next(parent for parent in path.parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error}") from error


def permit_as_usual(path: str | Path) -> None:
    """Give a file, or each file below a folder, the permissions of one that is simply opened and written.

    safetensors writes a file that its owner alone may read, whom a server of the folder need not be.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        usual = Path(scratch, "usual")
        usual.touch()
        mode = stat.S_IMODE(usual.stat().st_mode)
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends without an error.

    It lies beside `path`, in a folder that is made where it is missing. A link is followed, and the permissions of a
    file that is replaced are kept; a new one has those of `permit_as_usual`. Errors as in `writable_file`, before the
    block.
    """
    path = writable_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        else:
            permit_as_usual(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, keep: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` when the block ends without an error.

    It has the name of `path` and lies in a hidden folder beside it. A link is followed: the folder that it points to
    is replaced. A kill between the last two renames leaves nothing at `path`, and both the old and the new folder,
    complete, in the hidden one. Errors as in `replaceable_folder`, before the block.

    Args:
        path: of the folder; its files get the permissions of `permit_as_usual`.
        keep: files and folders, by their paths from `path`, that are copied into the new one as they are, links as
            links.
    """
    path = replaceable_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
        new, old = Path(scratch, "new", path.name), Path(scratch, "old")
        new.mkdir(parents=True)
        yield new
        permit_as_usual(new)
        for kept in keep:
            source, target = path / kept, new / kept
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy2(source, target, follow_symlinks=False)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise


def write_json(path: str | Path, content: dict) -> None:
    """Write JSON so that a reader sees the old file or the new one.

    Args:
        path: of the file; missing folders are made.
        content: JSON values.

    Raises:
        ValueError: a number of it is NaN or infinite, which JSON does not have.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path} is not written, a number of it is NaN or infinite: {error}") from error
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict:
    """Read a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, or nested without end; the error names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a number of too many digits is a plain ValueError
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def check_picture_name(option: str, path: str | Path, suffixes: Collection[str] = (".png",)) -> None:
    """Refuse a picture's file name of another ending.

    Args:
        option: of the command line, for the error.
        path: its value.
        suffixes: that are accepted.

    Raises:
        ValueError: naming the option and its value.
    """
    if Path(path).suffix not in suffixes:
        raise ValueError(f"{option} is {path}; accepted is a file that ends in {' or '.join(suffixes)}")
