"""Read and check image sets from a folder of images, an npz file or CIFAR-10."""

import io
import json
import sys
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from eval.protocol import resized_from, seed_range, tensor_sha256
from mobilediff.captions import CLASS_NAMES, load_nouns
from mobilediff.data import load_cifar10
from mobilediff.files import read_json
from mobilediff.images import decoding, resize_images

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = LOSSLESS, _ = ("PNG", "JPEG")  # of Pillow, which looks at the content and not at the name
BIT_DEPTH = 24  # position of a channel's number of bits in a PNG file (its specification, 11.2.1)
SHOWN = 5  # names of entries that are left out
MAX_SIZE = 1024  # pixels a side
MANIFEST = "manifest.json"
LABELS = "labels.json"


@dataclass(frozen=True)
class ImageSet:
    """Hold images with their labels, prompts and protocol.

    Attributes:
        images: uint8, [N, 3, H, W].
        class_labels: class indices 0..9, int64 [N], or None when not known.
        noun_ids: index into `load_nouns()`, -1 where not known, int64 [N], or None.
        prompts: the text each image was made from, or None.
        protocol: how the images came about, as JSON values.
    """

    images: torch.Tensor
    class_labels: torch.Tensor | None = None
    noun_ids: torch.Tensor | None = None
    prompts: list[str] | None = None
    protocol: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def known_labels(self) -> torch.Tensor:
        """Return the class labels, int64 [N].

        Raises:
            ValueError: they are not known.
        """
        if self.class_labels is None:
            raise ValueError(f"the class labels of {self.protocol.get('images', 'the images')} are not known")
        return self.class_labels

    def first(self, n: int) -> "ImageSet":
        """Take the first `n` images.

        Raises:
            ValueError: there are fewer, or `n` is below 1.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"n is {n}; accepted is 1 to {len(self)}, the number of images there")
        if n == len(self):
            return self
        images = self.images[:n]
        protocol = self.protocol | {"n": n, "images_sha256": tensor_sha256(images)}
        if "seed" in protocol:
            protocol["seeds"] = seed_range(protocol["seed"], n)
        return ImageSet(
            images=images,
            class_labels=None if self.class_labels is None else self.class_labels[:n],
            noun_ids=None if self.noun_ids is None else self.noun_ids[:n],
            prompts=None if self.prompts is None else self.prompts[:n],
            protocol=protocol,
        )


def real_images(data: str | Path | None, split: str) -> ImageSet:
    """Load one split of CIFAR-10 as an image set; arguments and errors as in `load_cifar10`."""
    dataset = load_cifar10(data, split)
    protocol = {"images": f"CIFAR-10 {split}", "images_sha256": tensor_sha256(dataset.images), "n": len(dataset)}
    return ImageSet(dataset.images, dataset.labels, dataset.noun_ids, protocol=protocol)


def check_size(size: int) -> None:
    """Refuse a size below 1 or over `MAX_SIZE`.

    Raises:
        ValueError: it is below 1 or over `MAX_SIZE`.
    """
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"--resize {size}: accepted is 1 to {MAX_SIZE}")


def resized(images: ImageSet, size: int) -> ImageSet:
    """Resize square images to `size` x `size` pixels by Pillow's Lanczos filter.

    The protocol then states it.

    Raises:
        ValueError: as in `check_size`, or the images are not square.
    """
    height, width = images.images.shape[2:]
    check_size(size)
    if height != width:
        raise ValueError(f"the images are {width}x{height} pixels; --resize takes square images")
    if width == size:
        return images

    smaller = resize_images(images.images, size)
    protocol = {"images_sha256": tensor_sha256(smaller), "resized": resized_from(images.images)}
    return replace(images, images=smaller, protocol=images.protocol | protocol)


def read_images(path: str | Path) -> ImageSet:
    """Read an image set from a folder of PNG or JPEG files, or npz.

    An image is turned as its EXIF orientation says. What else lies in the folder is left out: a line on stderr names
    it, and the protocol counts it. An npz file holds `images` or `arr_0`, [N, H, W, 3], uint8 or float32 in 0..1;
    floats are rounded to 8 bits, which the protocol then says.

    Raises:
        FileNotFoundError: there is nothing at `path`, or no image in the folder.
        ValueError: an image or the file is truncated, of another kind, mode, depth, size or range, or animated; or
            labels are none of this project's; the error names it.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a folder of images or an npz file")
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path} is neither a folder of images nor an npz file")
    return _read_npz(path)


def _read_folder(folder: Path) -> ImageSet:
    files, others = image_files(folder)
    left_out = f"{len(others)} entries are left out: {', '.join(others[:SHOWN])}{', ...' if others[SHOWN:] else ''}"
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no images: expected {', '.join(IMAGE_SUFFIXES)} files" + (f"; {left_out}" * bool(others))
        )
    if others:
        print(f"{folder}: {left_out}; read are its {', '.join(IMAGE_SUFFIXES)} files", file=sys.stderr)
    with ThreadPoolExecutor() as pool:
        arrays, formats = zip(*pool.map(lambda file: read_image(file.read_bytes(), file), files), strict=True)
    for file, array in zip(files, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"{file} is {array.shape[1]}x{array.shape[0]} pixels but {files[0].name} is "
                f"{arrays[0].shape[1]}x{arrays[0].shape[0]}: all images of a set have one size"
            )
    images = torch.from_numpy(np.stack(arrays).transpose(0, 3, 1, 2).copy())  # NHWC -> NCHW
    _check_range(images, str(folder))
    protocol = {"images_sha256": tensor_sha256(images), "n": len(images)}
    if set(formats) != {LOSSLESS}:
        protocol["lossy"] = True
    if others:
        protocol["left_out"] = len(others)
    if not (folder / MANIFEST).exists():
        return ImageSet(images, protocol=protocol)
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not {"n", "complete"} <= set(manifest):
        raise ValueError(f"{folder / MANIFEST} is no manifest of eval.generate: take it out, or name it otherwise")
    if type(manifest["n"]) is not int:
        raise ValueError(
            f"{folder / MANIFEST}: n is {manifest['n']!r}; accepted is a whole number, that of the images"
        )
    names = [f"{index:06d}" for index in range(len(files))]
    if not manifest["complete"] or manifest["n"] != len(files) or [file.stem for file in files] != names:
        raise ValueError(
            f"{folder} holds {len(files)} images but its {MANIFEST} speaks of {manifest['n']}: "
            "finish it with the eval.generate command that began it, or take the foreign files out"
        )
    labels = read_json(folder / LABELS)
    if not isinstance(labels, dict):
        raise ValueError(f"{folder / LABELS} holds a {type(labels).__name__}; accepted is a JSON object")
    return ImageSet(images, *_labels(labels, len(images), folder), protocol=manifest | protocol)


def image_files(folder: Path) -> tuple[list[Path], list[str]]:
    """List the image files of a folder, sorted, and the names of what else lies in it but for a set's own JSON."""
    files, others = [], []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file():
            files.append(path)
        elif path.name not in (MANIFEST, LABELS):
            others.append(path.name + "/" * path.is_dir())
    return files, others


def read_image(
    content: bytes, name: object, check: Callable[[Image.Image], None] = lambda image: None
) -> tuple[np.ndarray, str | None]:
    """Read RGB pixels of a PNG or JPEG file, turned as its EXIF orientation says.

    Args:
        content: of the file.
        name: of the file in an error.
        check: takes the image before its pixels are decoded, and raises what stops it.

    Returns:
        uint8 [H, W, 3], and the format of the content.

    Raises:
        ValueError: the image is truncated, of another kind, mode or depth, or animated.
    """
    refusal = f"{name} is not a whole image in PNG or JPEG"
    with decoding(refusal):
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
    with opened as image:
        check(image)
        with decoding(refusal):
            image.load()
        _check_kind(content, image, name)
        with decoding(refusal):
            turned = ImageOps.exif_transpose(image) if image.getexif() else image
        return np.asarray(turned), image.format


def _check_kind(content: bytes, image: Image.Image, name: object) -> None:
    """Refuse an image whose 8-bit RGB values would not be the picture."""
    depth = content[BIT_DEPTH] if image.format == LOSSLESS else 8
    if image.mode != "RGB" or depth != 8:
        kind = f"has mode {image.mode}" if image.mode != "RGB" else f"has {depth} bits a channel"
        raise ValueError(f"{name} {kind}; accepted is RGB, 8 bits a channel: convert it first")
    if "transparency" in image.info:
        raise ValueError(f"{name} has a transparent colour; accepted is RGB without transparency: convert it first")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"{name} holds {frames} frames; accepted is one image a file")


def _check_range(images: torch.Tensor, name: str) -> None:
    """Refuse values 0 and 1, which are black as 8 bits, where both are there."""
    if images.max() == 1:
        raise ValueError(f"{name} holds no value but 0 and 1 as 8 bits, which is black; accepted is 0..255")


def _read_npz(file: Path) -> ImageSet:
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is not a whole npz file of plain arrays: it is no zip archive")
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file} is not a whole npz file of plain arrays: {error}") from error
    key = next((key for key in ("images", "arr_0") if key in arrays), None)
    if key is None:
        raise ValueError(f"{file} holds {sorted(arrays)}; expected the images as 'images' or 'arr_0'")
    array = arrays[key]
    if array.dtype not in (np.uint8, np.float32) or array.ndim != 4 or array.shape[3] != 3 or not array.size:
        accepted = "uint8, or float32 in 0..1, [N, H, W, 3]"
        raise ValueError(f"{file}: {key} is {array.dtype} {array.shape}; accepted is {accepted}")
    protocol = _protocol(str(arrays["protocol"]), file) if "protocol" in arrays else {}
    if array.dtype == np.float32:
        array = _rounded(array, f"{file}: {key}")
        protocol["rounded"] = "from float32 in 0..1 to 8 bits"
    images = torch.from_numpy(array.transpose(0, 3, 1, 2).copy())  # NHWC -> NCHW
    _check_range(images, f"{file}: {key}")
    protocol |= {"images_sha256": tensor_sha256(images), "n": len(images)}
    labels = {name: arrays[name].tolist() for name in ("class_labels", "noun_ids", "prompts") if name in arrays}
    return ImageSet(images, *_labels(labels, len(images), file), protocol=protocol)


def _rounded(array: np.ndarray, name: str) -> np.ndarray:
    """Round float32 in 0..1 to uint8."""
    outside = ~((array >= 0) & (array <= 1))  # true for values that are not finite
    if outside.any():
        row = int(np.flatnonzero(outside.any(axis=(1, 2, 3)))[0])
        value = array[row][outside[row]][0]
        raise ValueError(f"{name} holds {value} in image {row}; accepted of float32 is 0..1, of uint8 0..255")
    return (array * 255).round().astype(np.uint8)


def _protocol(text: str, file: Path) -> dict:
    """Parse the protocol inside an npz file."""
    try:
        protocol = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: its protocol is not valid JSON: {error}") from error
    if not isinstance(protocol, dict):
        raise ValueError(f"{file}: its protocol is {text}; accepted is a JSON object")
    return protocol


def _labels(labels: dict, n: int, source: Path) -> tuple[torch.Tensor | None, torch.Tensor | None, list[str] | None]:
    """Check class labels, noun ids and prompts of N images."""
    labels = {name: values for name, values in labels.items() if values is not None}
    for name, values in labels.items():
        if not isinstance(values, list) or len(values) != n:
            raise ValueError(f"{source}: {len(values) if isinstance(values, list) else 1} {name} for {n} images")
    last_noun = len(load_nouns()) - 1
    classes = _whole_numbers("class_labels", labels, 0, len(CLASS_NAMES) - 1, source)
    noun_ids = _whole_numbers("noun_ids", labels, -1, last_noun, source)
    prompts = labels.get("prompts")
    if prompts is not None and (odd := [one for one in prompts if not isinstance(one, str)]):
        raise ValueError(f"{source}: a prompt is {odd[0]!r}; accepted are texts")
    return classes, noun_ids, prompts


def _whole_numbers(name: str, labels: dict, low: int, high: int, source: Path) -> torch.Tensor | None:
    """Convert labels to int64 [N], refusing what is no whole number from `low` to `high`."""
    if name not in labels:
        return None
    for index, value in enumerate(labels[name]):
        if type(value) is not int or not low <= value <= high:
            raise ValueError(
                f"{source}: {name} holds {value!r} for image {index}; accepted are whole numbers from {low} to {high}"
            )
    return torch.tensor(labels[name], dtype=torch.int64)
