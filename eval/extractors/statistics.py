"""Load an extractor's statistics over reference images: shipped, or computed once and kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from eval import WEIGHTS
from eval.extractors.base import Extractor, extract_features
from eval.metrics.frechet import Statistics, check_count, feature_statistics
from eval.samples.images import ImageSet, read_images, real_images
from mobilediff.data import SPLITS, data_source
from mobilediff.files import atomic_path, writable_file

SHIPPED = WEIGHTS / "reference"
CACHE = Path("outputs/reference")
STATISTICS_SUFFIX = ".safetensors"
MAX_FEATURES = 10000


def compute_reference(extractor: Extractor, images: ImageSet, device: torch.device | str = "cpu") -> Statistics:
    """Compute statistics of an image set, and keep the features of its first `MAX_FEATURES` images.

    Raises:
        ValueError: as in `extract_features` and `feature_statistics`, or a feature that float16 cannot hold.
    """
    features = extract_features(extractor, images.images, (extractor.layer,), device=device)[extractor.layer]
    metadata = {"images_sha256": images.protocol["images_sha256"], "n": str(len(images))}
    metadata |= extractor.protocol(images.images)
    kept = features[:MAX_FEATURES].half()
    if not torch.isfinite(kept).all():
        raise ValueError(f"{extractor.name} gave a feature beyond the range of float16, {features.abs().max():.3g}")
    return replace(feature_statistics(features, **metadata), features=kept.numpy())


def compact(statistics: Statistics, count: int) -> Statistics:
    """Make statistics of many features smaller: the covariance in float32, features of the first `count` images."""
    features = None if statistics.features is None else statistics.features[:count]
    return replace(statistics, sigma=statistics.sigma.astype(np.float32), features=features)


def save_reference(statistics: Statistics, file: str | Path) -> None:
    """Write statistics as safetensors, of the covariance its upper triangle, row by row."""
    tensors = {"mu": statistics.mu, "sigma_upper": statistics.sigma[np.triu_indices(len(statistics.mu))]}
    if statistics.features is not None:
        tensors["features"] = statistics.features
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata=statistics.metadata)


def check_reference_output(file: str | Path) -> None:
    """Refuse a file for statistics.

    Raises:
        ValueError: an ending other than .safetensors, or a file there that holds something else than statistics.
        OSError: as in `writable_file`.
    """
    if Path(file).suffix != STATISTICS_SUFFIX:
        raise ValueError(f"--output is {file}; accepted is a file that ends in {STATISTICS_SUFFIX}")
    writable_file(file)
    if Path(file).exists():
        try:
            _read_statistics(file)
        except ValueError as error:
            raise ValueError(f"--output is kept, take another file: {error}") from error


def load_reference(file: str | Path, extractor: Extractor) -> Statistics:
    """Load statistics and check that `extractor` made them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is corrupt or no file of statistics, or was made with another extractor or other weights.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} does not exist: python -m eval.reference makes it")
    tensors, metadata = _read_statistics(file)
    for key, value in extractor.protocol().items():
        if metadata.get(key) != value:
            raise ValueError(
                f"{file} is stale, or of another extractor ({key} is {metadata.get(key)!r} there, {value!r} here): "
                "name its extractor, or make it again with python -m eval.reference"
            )
    mu, sigma = tensors["mu"], np.zeros((len(tensors["mu"]),) * 2)  # in float64, also that of a compact file
    rows, columns = np.triu_indices(len(mu))
    sigma[rows, columns] = sigma[columns, rows] = tensors["sigma_upper"]
    return Statistics(mu, sigma, int(metadata["n"]), metadata, tensors.get("features"))


def _read_statistics(file: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the tensors and the metadata of a file of statistics."""
    try:
        with safe_open(file, framework="numpy") as content:
            metadata = content.metadata() or {}
            names = set(content.keys())
            if not {"mu", "sigma_upper"} <= names or not {"n", "images_sha256"} <= set(metadata):
                raise ValueError(f"{file} holds no statistics of python -m eval.reference")
            tensors = {name: content.get_tensor(name) for name in names}
            count, features = tensors["sigma_upper"].size, tensors["mu"].size
            if count != features * (features + 1) // 2:
                raise ValueError(f"{file} is corrupt: it holds {count} covariances of {features} features")
            return tensors, metadata
    except SafetensorError as error:
        raise ValueError(f"{file} is corrupt or truncated: {error}") from error


def reference_name(reference: str) -> str:
    """Name a reference in a result, which identifies its images by their hash."""
    return f"CIFAR-10 {reference}" if reference in SPLITS else Path(reference).name


def reference_protocol(reference: str, statistics: Statistics) -> dict:
    """Return the reference's part of a protocol."""
    sha256 = statistics.metadata["images_sha256"]
    return {"reference": reference_name(reference), "reference_n": statistics.n, "reference_sha256": sha256}


def reference_images(reference: str, data: str | Path | None = None) -> ImageSet:
    """Read the images of a reference: a split of CIFAR-10, a folder of images or an npz file.

    Raises:
        FileNotFoundError, ValueError: neither; or as in `load_cifar10` and `read_images`.
    """
    if reference in SPLITS:
        return real_images(data, reference)
    if not Path(reference).exists():
        raise FileNotFoundError(
            f"there is no {reference}: accepted are {', '.join(SPLITS)}, a folder of images, an npz file, or as a "
            f"reference a file of statistics ({STATISTICS_SUFFIX})"
        )
    return read_images(reference)


def shipped_file(extractor: Extractor, split: str) -> Path:
    """Return the place of an extractor's shipped statistics of a split of CIFAR-10, where `shipped_as` names it."""
    return SHIPPED / f"{extractor.shipped_as}{split}{STATISTICS_SUFFIX}"


def reference_file(extractor: Extractor, reference: str) -> Path:
    """Return the file of an extractor's statistics: the shipped one where there is one, else cached by hash.

    Args:
        extractor: from `choose_extractor`.
        reference: a split of CIFAR-10, or the hash of images.
    """
    if extractor.shipped_as is not None and reference in SPLITS and shipped_file(extractor, reference).is_file():
        return shipped_file(extractor, reference)
    options = "".join(f"-{value}" for value in extractor.options.values()).replace(":", "-")
    return CACHE / f"{extractor.name}{options}-{extractor.sha256[:12]}-{reference[:12]}{STATISTICS_SUFFIX}"


def reference_statistics(
    extractor: Extractor, reference: str, data: str | Path | None = None, device: torch.device | str = "cpu"
) -> Statistics:
    """Load statistics of a reference, shipped or cached, or compute and cache them.

    Args:
        extractor: from `choose_extractor`.
        reference: "train" or "test" of CIFAR-10, a folder of images, an npz file, or a file of statistics.
        data: CIFAR-10; not needed where statistics of it are there. Where it is given, or the variable
            MOBILEDIFF_DATA and the statistics are not the shipped ones, they must be of its images.
        device: of the extractor.

    Raises:
        FileNotFoundError, ValueError: as in `load_reference`, `reference_images` and `compute_reference`; or the
            statistics there are of other images.
    """
    if Path(reference).suffix == STATISTICS_SUFFIX:
        return load_reference(reference, extractor)
    shipped = reference in SPLITS and reference_file(extractor, reference).parent == SHIPPED
    data = data if shipped else data_source(data)
    images = None if reference in SPLITS and not data else reference_images(reference, data)
    name = reference if images is None or reference in SPLITS else images.protocol["images_sha256"]
    file = reference_file(extractor, name)
    if file.parent != SHIPPED and not file.exists():
        source = reference_images(reference, data) if images is None else images
        save_reference(compute_reference(extractor, source, device), file)
    statistics = load_reference(file, extractor)
    if images is not None and statistics.n < len(images):
        images = images.first(statistics.n)  # statistics may be of the first images of a split
    if images is not None and statistics.metadata["images_sha256"] != images.protocol["images_sha256"]:
        raise ValueError(
            f"{file} is of other images than {data or reference}, {reference_name(reference)}; take the images that "
            "it was made from, or move the file away to have it made again"
        )
    return statistics


def check_image_count(n: int, extractor: Extractor) -> None:
    """Refuse a number of images that has no distance to the training images, before any work.

    Raises:
        ValueError: as in `check_count`.
    """
    check_count(n, len(reference_statistics(extractor, "train").mu))
