"""Read the pictures that a visitor uploads, without trust: every name, size and kind may lie."""

import io
import logging
import math
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image

from eval.extractors.judge import IMAGE_SIZE
from eval.samples.images import IMAGE_SUFFIXES, MAX_SIZE, ImageSet, read_image, read_images
from mobilediff.captions import CLASS_NAMES
from mobilediff.demo.service.inputs import quoted
from mobilediff.demo.service.turns import TURNS
from mobilediff.images import resize_image

logger = logging.getLogger(__name__)

MIB = 2**20
MAX_BYTES = 50 * MIB  # of all files of an upload, as they are sent
MAX_UNPACKED = 100 * MIB  # of an archive's members
MAX_PICTURES = 5000
MAX_ENTRIES = 10_000  # of an archive, folders and whatever else is in it counted
MAX_PIXELS = 100_000_000  # of all pictures together; a picture has up to MAX_SIZE a side
MAX_NAMED = 20  # refused files
MAX_REASON = 300  # characters of a reason that may hold a visitor's own text
TURN = 0.3  # seconds of reading, after which a visitor who waits for a drawing has the processor
ARCHIVES = ZIP, NPZ = (".zip", ".npz")
IMAGES = ("images", "arr_0")  # of an npz file
ACCEPTED = "one .zip, one .npz, or files in .png, .jpg or .jpeg"
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1  # bit of a member's flags (APPNOTE.TXT of the zip format, 4.4.4)
BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)


class TooMuch(ValueError):
    """An upload exceeds a limit as a whole."""


@dataclass(frozen=True)
class File:
    """Hold a file of an upload.

    Attributes:
        name: as `quoted`.
        label: index of its class, -1 where not known.
        content: of the file.
    """

    name: str
    label: int
    content: bytes


@dataclass
class Upload:
    """Hold the pictures of an upload that could be read, and what was left out.

    Attributes:
        pictures: uint8 [32, 32, 3] each.
        labels: class indices, -1 where not known, one a picture.
        names: of the pictures, as `quoted`.
        pixels: read so far, before pictures were brought to 32 x 32.
        resized: pictures that had another size.
        refused: a sentence for each of the first `MAX_NAMED` files that were left out.
        refused_count: files that were left out.
    """

    pictures: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    pixels: int = 0
    resized: int = 0
    refused: list[str] = field(default_factory=list)
    refused_count: int = 0

    @property
    def images(self) -> torch.Tensor:
        """Return the pictures, uint8 [N, 3, 32, 32]."""
        return torch.from_numpy(np.stack(self.pictures).transpose(0, 3, 1, 2).copy())  # NHWC -> NCHW

    def refuse(self, problem: str) -> None:
        """Leave a file out, for a reason that names it."""
        self.refused_count += 1
        if len(self.refused) < MAX_NAMED:
            self.refused.append(f"{cut(problem)}.")

    def keep(self, picture: np.ndarray, name: str, label: int) -> None:
        """Add a square picture, uint8 [H, W, 3], brought to 32 x 32 by Lanczos."""
        if len(self.pictures) == MAX_PICTURES:
            raise TooMuch(f"There are more than {MAX_PICTURES:,} pictures; accepted are up to as many.")
        if len(picture) != IMAGE_SIZE:
            picture = resize_image(picture, IMAGE_SIZE)
            self.resized += 1
        self.pictures.append(picture)
        self.names.append(name)
        self.labels.append(label)

    def read(self, file: File) -> None:
        """Add a file in PNG or JPEG, or leave it out if it is none.

        Raises:
            TooMuch: the upload has more pictures or more pixels than accepted.
        """
        try:
            picture, _ = read_image(file.content, file.name, lambda image: self._check_head(image, file.name))
        except TooMuch:
            raise
        except ValueError as error:
            self.refuse(str(error))
        except Exception:  # a broken file can raise anything
            logger.exception("a picture cannot be read")
            self.refuse(f"{file.name} cannot be read")
        else:
            self.keep(picture, file.name, file.label)

    def _check_head(self, image: Image.Image, name: str) -> None:
        """Refuse an image by its head, before pixels are decoded."""
        check_head(image, name, MAX_SIZE)
        width, height = image.size
        if width != height:
            raise ValueError(f"{name} is {width}x{height} pixels; accepted are square pictures")
        self.pixels += width * height
        if self.pixels > MAX_PIXELS:
            raise TooMuch(f"The pictures have more than {MAX_PIXELS:,} pixels together; accepted are up to as many.")


def check_head(image: Image.Image, name: str, most: int) -> None:
    """Refuse an image that is too large, or that may take too long to decode, by its head.

    Args:
        image: opened, its pixels not yet decoded.
        name: of the image in an error.
        most: pixels a side.

    Raises:
        ValueError: it has more pixels a side, or is a progressive JPEG.
    """
    width, height = image.size
    if width > most or height > most:
        raise ValueError(f"{name} is {width}x{height} pixels; accepted are up to {most} a side")
    if "progressive" in image.info:  # a small file can hold thousands of scans, each as much work as a picture
        raise ValueError(f"{name} is a progressive JPEG; accepted are baseline JPEG and PNG: convert it first")


def check_files(files: object, folder: str | Path) -> list[Path]:
    """Return the paths of uploaded files.

    Args:
        files: as gradio hands them on, or whatever a program sent.
        folder: that gradio keeps uploads in.

    Raises:
        ValueError: there is none; they are not of `ACCEPTED`, too large or too many, or lie elsewhere.
    """
    if files is None or files == []:
        raise ValueError(f"There is no file; accepted is {ACCEPTED}.")
    if not isinstance(files, list) or not all(
        isinstance(file, dict) and isinstance(file.get("path"), str) for file in files
    ):
        raise ValueError(f"The files are {quoted(files)}; accepted is a list of uploaded files.")
    if len(files) > MAX_PICTURES:
        raise ValueError(f"There are {len(files):,} files; accepted are up to {MAX_PICTURES:,}.")
    paths = [Path(file["path"]) for file in files]
    for path in paths:
        if not is_uploaded(path, Path(folder)):
            raise ValueError(f"The file {quoted(path.name)} was not uploaded; accepted is {ACCEPTED}.")
        if path.suffix.lower() not in (*ARCHIVES, *IMAGE_SUFFIXES):
            raise ValueError(f"The file {quoted(path.name)} is of another kind; accepted is {ACCEPTED}.")
    if len(paths) > 1 and any(path.suffix.lower() in ARCHIVES for path in paths):
        raise ValueError(f"There are {len(paths)} files, an archive among them; accepted is {ACCEPTED}.")
    if (size := sum(path.stat().st_size for path in paths)) > MAX_BYTES:
        raise ValueError(f"The files have {size / MIB:,.1f} MiB; accepted are up to {MAX_BYTES // MIB} MiB.")
    return paths


def is_uploaded(path: Path, folder: Path) -> bool:
    """Tell whether a path is that of a file in a folder."""
    try:
        return path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):  # too long, or a null in it
        return False


def read_upload(paths: list[Path]) -> Generator[str, None, Upload]:
    """Read the pictures of files from `check_files` in turns, each brought to 32 x 32 pixels by Lanczos.

    Nothing is written: members of a zip are unpacked into memory, one at a time. A label is the name of the folder
    that a picture of a zip lies in, where that is a class, or stands in the npz file.

    Yields:
        A sentence after each turn.

    Raises:
        ValueError: an archive is broken or too large, or there is no picture that can be read.
    """
    upload = Upload()
    kind = paths[0].suffix.lower()
    if kind == NPZ:
        with TURNS.of_batch():
            images = _read_npz(paths[0])
        jobs = _rows(images, upload)
    else:
        files = _members(paths[0], upload) if kind == ZIP else _singles(paths)
        jobs = (partial(upload.read, file) for file in files)
    at_end = False
    while not at_end:
        with TURNS.of_batch():
            at_end = _do_some(jobs)
        yield f"Read {len(upload.pictures):,} pictures."
    if not upload.pictures:
        raise ValueError(" ".join(["There is no picture that can be read.", *upload.refused]))
    return upload


def _do_some(jobs: Iterator[Callable[[], None]]) -> bool:
    """Do jobs for `TURN` seconds, and tell whether these were the last."""
    end = time.monotonic() + TURN
    while time.monotonic() < end:
        if (job := next(jobs, None)) is None:
            return True
        job()
    return False


def _singles(paths: list[Path]) -> Iterator[File]:
    for path in paths:
        yield File(quoted(path.name), -1, path.read_bytes())


def _members(path: Path, upload: Upload) -> Iterator[File]:
    """Unpack the pictures of a zip, and leave out what else is in it."""
    name = quoted(path.name)
    with _archive(path) as archive:
        left, seen = MAX_UNPACKED, set()
        for member in archive.infolist():
            if member.is_dir():
                continue
            shown = quoted(member.filename)
            if problem := _problem(member, seen):
                upload.refuse(f"{shown} {problem}")
                continue
            seen.add(member.filename)
            left = _left(left, member, name)
            try:
                content = _unpack(archive, member)
            except BROKEN:
                upload.refuse(f"{shown} is damaged in the zip")
                continue
            folder = PurePosixPath(member.filename).parent.name.lower()
            yield File(shown, CLASS_NAMES.index(folder) if folder in CLASS_NAMES else -1, content)


def _archive(path: Path) -> zipfile.ZipFile:
    """Open a zip of up to `MAX_ENTRIES` entries."""
    name = quoted(path.name)
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN as error:
        raise ValueError(f"The file {name} is no whole zip archive.") from error
    if (count := len(archive.filelist)) > MAX_ENTRIES:
        archive.close()
        raise TooMuch(f"The file {name} has {count:,} entries; accepted are up to {MAX_ENTRIES:,}.")
    return archive


def _problem(member: zipfile.ZipInfo, seen: set[str]) -> str | None:
    """Say why a member of a zip is left out, None if it is not."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link or a device; accepted are files"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts:
        return "has a name that leads out of its folder"
    if not name.isprintable():
        return "has control characters in its name"
    if name in seen:
        return "is there twice; the first one is read"
    if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
        return f"is of another kind; accepted in a zip are {', '.join(IMAGE_SUFFIXES)}"
    return _packing_problem(member)


def _packing_problem(member: zipfile.ZipInfo) -> str | None:
    """Say why a member cannot be unpacked safely, None if it can."""
    if member.flag_bits & ENCRYPTED:
        return "is encrypted; accepted is a zip without a password"
    if member.compress_type not in COMPRESSIONS:  # others cannot be unpacked in bounded pieces
        return "is packed by another method; accepted are stored and deflated members"
    return None


def _left(left: int, member: zipfile.ZipInfo, name: str) -> int:
    """Return the bytes that may yet be unpacked after a member, which never gives more than it states."""
    if member.file_size > left:
        raise TooMuch(f"The file {name} unpacks to more than {MAX_UNPACKED // MIB} MiB, the most accepted.")
    return left - member.file_size


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Unpack a member with a bound, since without one all that is packed is unpacked before it is cut."""
    with archive.open(member) as file:
        return file.read(member.file_size + 1)


def _read_npz(path: Path) -> ImageSet:
    """Read an npz file of plain arrays, whose sizes are checked before any of them is read."""
    name = quoted(path.name)
    with _archive(path) as archive:
        left = MAX_UNPACKED
        for member in archive.infolist():
            shown = quoted(member.filename)
            if problem := _packing_problem(member):
                raise ValueError(f"The file {name}: {shown} {problem}.")
            left = _left(left, member, name)
            try:
                content = _unpack(archive, member)
            except BROKEN as error:
                raise ValueError(f"The file {name}: {shown} is damaged.") from error
            try:
                _check_array(content, member.filename.removesuffix(".npy"))
            except ValueError as error:
                raise ValueError(f"The file {name}: {shown} {cut(str(error))}.") from error
    try:
        return read_images(path)
    except ValueError as error:
        raise ValueError(f"{cut(str(error).replace(str(path), f'The file {name}'))}.") from error


def _rows(images: ImageSet, upload: Upload) -> Iterator[Callable[[], None]]:
    """Make a job that keeps it of each image of a set."""
    labels = [-1] * len(images) if images.class_labels is None else images.class_labels.tolist()
    for index, (image, label) in enumerate(zip(images.images, labels, strict=True)):
        yield partial(upload.keep, image.permute(1, 2, 0).numpy(), f"image {index}", label)


def _check_array(content: bytes, name: str) -> None:
    """Refuse an array of an npz file by its head.

    Raises:
        ValueError: it is none, holds less than its head says, is larger than accepted or, of images, not square.
    """
    file = io.BytesIO(content)
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
    except (ValueError, KeyError, EOFError) as error:
        raise ValueError("is no plain array") from error
    if dtype.hasobject:
        raise ValueError("holds Python objects; accepted are plain arrays")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"holds {len(content) - file.tell():,} bytes for the shape {shape} that it states")
    if name not in IMAGES:
        if math.prod(shape) > MAX_PICTURES:
            raise ValueError(f"holds {math.prod(shape):,} values; accepted are up to {MAX_PICTURES:,}")
        return
    if len(shape) == 4 and (shape[0] > MAX_PICTURES or max(shape[1:3]) > MAX_SIZE or shape[1] != shape[2]):
        raise ValueError(
            f"has the shape {shape}; accepted are up to {MAX_PICTURES:,} square pictures of up to {MAX_SIZE} a side"
        )


def cut(text: str) -> str:
    """Write text in ASCII, cut to `MAX_REASON` characters."""
    text = text[:MAX_REASON] + "..." * (len(text) > MAX_REASON)
    return "".join(one if one.isprintable() and one.isascii() else ascii(one)[1:-1] for one in text)
