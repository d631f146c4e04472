"""Files that a command writes its result to, tried before anything is measured."""

import argparse
from collections.abc import Collection
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from mobilediff.files import atomic_path, check_picture_name, read_json, writable_file

ENLARGED = 4  # so that samples of 32 x 32 pixels can be seen on a page


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", type=json_output, help="also write the result to this file")


def json_output(path: str) -> str:
    """Return a file for a command's result, refusing one that cannot be written or holds something else.

    Raises:
        OSError: as in `writable_file`.
        argparse.ArgumentTypeError: an empty name, or a file there is no command's result, such as a set's manifest.
    """
    if not path:
        raise argparse.ArgumentTypeError("it is empty; accepted is a file")
    file = writable_file(path)
    if file.exists() and file.stat().st_size and not _is_result(file):
        raise argparse.ArgumentTypeError(f"{path} holds something else than a result and is kept: take another file")
    return path


def _is_result(file: Path) -> bool:
    try:
        content = read_json(file)
    except ValueError:
        return False
    return isinstance(content, dict) and "command" in content


def write_picture(path: str | Path, image: torch.Tensor) -> None:
    """Write an image, uint8 [3, height, width], as PNG in one piece, each of its pixels `ENLARGED` wide and high."""
    picture = to_pil_image(image)
    picture = picture.resize((ENLARGED * picture.width, ENLARGED * picture.height), Image.Resampling.NEAREST)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def check_picture_output(option: str, path: str | Path, suffixes: Collection[str] = (".png",)) -> None:
    """Refuse a file for a picture.

    Raises:
        ValueError: as in `check_picture_name`.
        OSError: as in `writable_file`.
    """
    check_picture_name(option, path, suffixes)
    writable_file(path)
