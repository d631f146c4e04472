"""Load CIFAR-10 into memory: images, class labels and nouns, from a folder or the hub."""

import io
import os
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mobilediff.captions import load_nouns
from mobilediff.images import decoding, resize_images

DATA_VARIABLE = "MOBILEDIFF_DATA"
SPLITS = ("train", "test")
RESOLUTIONS = (32, 64)
TRAIN_BATCHES = 5  # of the official python batches


@dataclass(frozen=True)
class ImageDataset:
    """Hold decoded images with their labels.

    Attributes:
        images: uint8, [N, 3, R, R].
        labels: class indices 0..9, int64 [N].
        noun_ids: index into `load_nouns()`, -1 where the source names no noun, int64 [N].
    """

    images: torch.Tensor
    labels: torch.Tensor
    noun_ids: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)

    def head(self, count: int) -> "ImageDataset":
        """Take the first `count` images with their labels."""
        return ImageDataset(self.images[:count], self.labels[:count], self.noun_ids[:count])


def data_source(source: str | Path | None) -> str | Path | None:
    """Return the source of CIFAR-10: `source`, else the variable MOBILEDIFF_DATA, else None."""
    return source or os.environ.get(DATA_VARIABLE)


def load_cifar10(source: str | Path | None, split: str = "train", resolution: int = 32) -> ImageDataset:
    """Load one split of CIFAR-10.

    Args:
        source: a folder of parquet shards (columns `img`, `label`, optional `filename`), the folder of the official
            python batches, or the name of a data set on the hub. `None` reads the variable MOBILEDIFF_DATA.
        split: "train" or "test".
        resolution: 32 (native) or 64 (Lanczos).

    Raises:
        ValueError: an unknown split or resolution, no source, or a file of the split is missing or damaged.
        FileNotFoundError: a folder that holds no CIFAR-10 files of that split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; accepted are {', '.join(SPLITS)}")
    if resolution not in RESOLUTIONS:
        raise ValueError(f"resolution is {resolution!r}; accepted are {RESOLUTIONS}")
    source = data_source(source)
    if not source:
        raise ValueError(f"no CIFAR-10 source: pass a folder or a hub name, or set {DATA_VARIABLE}")
    folder = Path(source)
    if folder.is_dir():
        images, labels, filenames = _read_folder(folder, split)
    elif not _may_be_on_the_hub(folder, str(source)):
        raise FileNotFoundError(f"{source} is neither a folder nor the name of a data set on the hub (owner/name)")
    else:
        images, labels, filenames = _read_hub(str(source), split)
    images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))  # NHWC -> NCHW
    return ImageDataset(
        images=resize_images(images, resolution),
        labels=torch.tensor(labels, dtype=torch.int64),
        noun_ids=_noun_ids(filenames, len(labels)),
    )


def _may_be_on_the_hub(path: Path, name: str) -> bool:
    """False for what is there, is no owner/name, or lies in a folder that is there: a folder's name misspelt."""
    return not path.exists() and name.count("/") == 1 and name[0] not in "./~" and not path.parent.exists()


def _read_folder(folder: Path, split: str):
    shards = sorted(folder.glob(f"{split}-*-of-[0-9]*.parquet"))
    if shards:
        _check_all_there(shards, int(shards[0].stem.rpartition("-of-")[2]))
        return _read_parquet(shards)
    batches = sorted(folder.glob("data_batch_*" if split == "train" else "test_batch"))
    if batches:
        _check_all_there(batches, TRAIN_BATCHES if split == "train" else 1)
        return _read_batches(batches)
    raise FileNotFoundError(
        f"{folder} holds no CIFAR-10 {split} images: expected {split}-*-of-*.parquet or the official python batches"
    )


def _check_all_there(files: list[Path], expected: int) -> None:
    if len(files) != expected:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{files[0].parent} holds {len(files)} of {expected} files of the split: {names}")


def _read_parquet(shards: list[Path]):
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetDataset(shards).read()
    missing = {"img", "label"} - set(table.column_names)
    if missing:
        raise ValueError(f"{shards[0].parent}: the parquet shards lack the columns {sorted(missing)}")
    encoded = [cell["bytes"] for cell in table["img"].to_pylist()]
    filenames = table["filename"].to_pylist() if "filename" in table.column_names else None
    return _decode(encoded), table["label"].to_numpy(), filenames


def _decode(encoded: list[bytes]) -> np.ndarray:
    def decode_one(row: int) -> np.ndarray:
        with decoding(f"image {row} of the parquet shards is damaged"):
            return np.asarray(Image.open(io.BytesIO(encoded[row])).convert("RGB"))

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(decode_one, range(len(encoded)), chunksize=512)))


class _BatchUnpickler(pickle.Unpickler):
    """Read the official batches, which are pickles, into numpy arrays and nothing else."""

    ALLOWED = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"a CIFAR-10 batch may not name {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_batches(files: list[Path]):
    images, labels, filenames = [], [], []
    for file in files:
        with file.open("rb") as stream:
            try:
                batch = _BatchUnpickler(stream, encoding="bytes").load()
            except (pickle.UnpicklingError, EOFError) as error:
                raise ValueError(f"{file} is no CIFAR-10 batch: {error}") from error
        images.append(np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.extend(batch[b"labels"])
        filenames.extend(name.decode() for name in batch[b"filenames"])
    return np.concatenate(images), np.asarray(labels), filenames


def _read_hub(name: str, split: str):
    import datasets

    print(f"{name} is no folder here: it is looked for among the data sets of the hub", file=sys.stderr)
    try:
        table = datasets.load_dataset(name, split=split)
    except Exception as error:  # datasets, the hub's client and the network raise errors without a common parent
        raise FileNotFoundError(f"{name} is no folder, and cannot be had from the hub: {error}") from error
    image_column = "img" if "img" in table.column_names else "image"
    missing = {image_column, "label"} - set(table.column_names)
    if missing:
        raise ValueError(f"{name} lacks the columns {sorted(missing)}; it has {table.column_names}")
    images = np.stack([np.asarray(image.convert("RGB")) for image in table[image_column]])
    filenames = list(table["filename"]) if "filename" in table.column_names else None
    return images, np.asarray(table["label"]), filenames


def _noun_ids(filenames: list[str] | None, count: int) -> torch.Tensor:
    """Look up nouns: "fire_truck_s_000123.png" has the index of "fire truck", an unknown stem -1; int64 [N]."""
    if filenames is None:
        return torch.full((count,), -1, dtype=torch.int64)
    index = {noun: i for i, noun in enumerate(load_nouns())}
    stems = (re.sub(r"_s_\d+\.png$", "", Path(name).name).replace("_", " ") for name in filenames)
    return torch.tensor([index.get(stem, -1) for stem in stems], dtype=torch.int64)
