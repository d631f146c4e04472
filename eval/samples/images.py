"""Read and check image sets from a folder of images, an npz file or CIFAR-10."""

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from eval.protocol import seed_range, tensor_sha256
from mobilediff.data import load_cifar10
from mobilediff.files import read_json

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
LOSSY_SUFFIXES = (".jpg", ".jpeg")
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

    def resize_one(image: torch.Tensor) -> np.ndarray:
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))

    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(resize_one, images.images))
    smaller = torch.from_numpy(np.stack(arrays).transpose(0, 3, 1, 2).copy())  # NHWC -> NCHW
    protocol = {"images_sha256": tensor_sha256(smaller), "resized": f"Lanczos (Pillow), from {width}x{height}"}
    return replace(images, images=smaller, protocol=images.protocol | protocol)


def read_images(path: str | Path) -> ImageSet:
    """Read an image set from a folder of PNG or JPEG files, or npz.

    An npz file holds `images` or `arr_0`, [N, H, W, 3], uint8 or float32 in 0..1; floats are rounded to 8 bits, which
    the protocol then says.

    Raises:
        FileNotFoundError: there is nothing at `path`, or no image in the folder.
        ValueError: an image or the file is truncated, of another kind, mode, size or range; the error names it.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a folder of images or an npz file")
    if path.suffix != ".npz":
        raise ValueError(f"{path} is neither a folder of images nor an npz file")
    return _read_npz(path)


def _read_folder(folder: Path) -> ImageSet:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder} holds no images: expected {', '.join(IMAGE_SUFFIXES)} files")
    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(_read_image, files))
    for file, array in zip(files, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"{file} is {array.shape[1]}x{array.shape[0]} pixels but {files[0].name} is "
                f"{arrays[0].shape[1]}x{arrays[0].shape[0]}: all images of a set have one size"
            )
    images = torch.from_numpy(np.stack(arrays).transpose(0, 3, 1, 2).copy())  # NHWC -> NCHW
    protocol = {"images_sha256": tensor_sha256(images), "n": len(images)}
    if any(file.suffix.lower() in LOSSY_SUFFIXES for file in files):
        protocol["lossy"] = True
    if not (folder / MANIFEST).exists():
        return ImageSet(images, protocol=protocol)
    manifest = read_json(folder / MANIFEST)
    names = [f"{index:06d}" for index in range(manifest["n"])]
    if not manifest["complete"] or [file.stem for file in files] != names:
        raise ValueError(
            f"{folder} holds {len(files)} images but its {MANIFEST} speaks of {manifest['n']}: "
            "finish it with the eval.generate command that began it, or take the foreign files out"
        )
    return ImageSet(images, *_labels(read_json(folder / LABELS), len(images), folder), protocol=manifest | protocol)


def _read_image(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            image.load()
            mode, array = image.mode, np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # PIL reports broken PNG chunks as SyntaxError
        raise ValueError(f"{file} is not a whole image: {error}") from error
    if mode != "RGB":
        raise ValueError(f"{file} has mode {mode}; accepted is RGB, 8 bits a channel: convert it first")
    return array


def _read_npz(file: Path) -> ImageSet:
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file} is not a whole npz file of plain arrays: {error}") from error
    key = next((key for key in ("images", "arr_0") if key in arrays), None)
    if key is None:
        raise ValueError(f"{file} holds {sorted(arrays)}; expected the images as 'images' or 'arr_0'")
    array = arrays[key]
    if array.dtype not in (np.uint8, np.float32) or array.ndim != 4 or array.shape[3] != 3 or not len(array):
        accepted = "uint8, or float32 in 0..1, [N, H, W, 3]"
        raise ValueError(f"{file}: {key} is {array.dtype} {array.shape}; accepted is {accepted}")
    protocol = json.loads(str(arrays["protocol"])) if "protocol" in arrays else {}
    if array.dtype == np.float32:
        array = _rounded(array, f"{file}: {key}")
        protocol["rounded"] = "from float32 in 0..1 to 8 bits"
    images = torch.from_numpy(array.transpose(0, 3, 1, 2).copy())  # NHWC -> NCHW
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


def _labels(labels: dict, n: int, source: Path):
    for name, values in labels.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{source}: {len(values)} {name} for {n} images")

    def tensor(name):
        return torch.tensor(labels[name], dtype=torch.int64) if labels.get(name) is not None else None

    return tensor("class_labels"), tensor("noun_ids"), labels.get("prompts")
