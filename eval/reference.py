"""Mean and covariance of an extractor's features over CIFAR-10, kept with the hashes of what made them.

    python -m eval.reference --data DIR        # the judge's, and the bundled CLIP's score of real images

They ship as eval/weights/reference/{train,test}.safetensors and clip_score.json.
"""

import argparse
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch_fidelity.metric_fid import fid_features_to_statistics

from eval.clip_score import SHIPPED_REAL_SCORE, bundled_clip, score_real_images
from eval.extractors import JUDGE, Extractor, extract_features, judge_extractor
from eval.images import real_images
from eval.protocol import atomic_path, write_json
from mobilediff.data import SPLITS
from mobilediff.pipeline import MobileDiffusionPipeline

SHIPPED = Path(__file__).parent / "weights" / "reference"
CACHE = Path("outputs/reference")


@dataclass(frozen=True)
class Statistics:
    """A Gaussian fitted to features.

    Attributes:
        mu: mean, float64 [F].
        sigma: covariance (n - 1), float64 [F, F].
        n: images it was fitted to.
        metadata: split, hashes of the images and of the extractor.
    """

    mu: np.ndarray
    sigma: np.ndarray
    n: int
    metadata: dict[str, str]


def check_count(n: int, dim: int) -> None:
    """Refuse too few images for a Gaussian of `dim` features.

    Raises:
        ValueError: fewer than `dim` + 1, whose covariance cannot have full rank.
    """
    if n < max(2, dim + 1):
        raise ValueError(f"{n} images are too few: the covariance of {dim} features needs at least {dim + 1}")


def feature_statistics(features: torch.Tensor, **metadata: str) -> Statistics:
    """Fit a Gaussian to features [N, F] in float64, by torch-fidelity's own function.

    Raises:
        ValueError: fewer than F + 1 rows, whose covariance cannot have full rank, or a value that is not finite.
    """
    check_count(*features.shape)
    if not torch.isfinite(features).all():
        raise ValueError("a feature is not finite")
    fitted = fid_features_to_statistics(features.double())
    return Statistics(fitted["mu"], fitted["sigma"], len(features), metadata)


def compute_reference(
    extractor: Extractor, split: str, data: str | Path | None, device: torch.device | str = "cpu"
) -> Statistics:
    """Statistics of one split of CIFAR-10."""
    images = real_images(data, split)
    features = extract_features(extractor, images.images, (extractor.layer,), device=device)[extractor.layer]
    metadata = {"split": split, "images_sha256": images.protocol["images_sha256"], "n": str(len(images))}
    metadata |= {"extractor": extractor.name, "extractor_sha256": extractor.sha256, "resize": extractor.resize}
    return feature_statistics(features, **metadata)


def save_reference(statistics: Statistics, file: str | Path) -> None:
    """Write statistics as safetensors."""
    with atomic_path(file) as temporary:
        save_file({"mu": statistics.mu, "sigma": statistics.sigma}, temporary, metadata=statistics.metadata)


def load_reference(file: str | Path, extractor: Extractor) -> Statistics:
    """Read statistics that `extractor` made.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is corrupt, or was made with other weights.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} does not exist: python -m eval.reference --data DIR makes it")
    try:
        with safe_open(file, framework="numpy") as content:
            metadata = content.metadata()
            mu, sigma = content.get_tensor("mu"), content.get_tensor("sigma")
    except SafetensorError as error:
        raise ValueError(f"{file} is corrupt or truncated: {error}") from error
    if metadata["extractor_sha256"] != extractor.sha256:
        raise ValueError(
            f"{file} is stale: made with {metadata['extractor']} {metadata['extractor_sha256'][:12]}, but the weights "
            f"are {extractor.sha256[:12]}. python -m eval.reference --data DIR makes it again"
        )
    return Statistics(mu, sigma, int(metadata["n"]), metadata)


def reference_file(extractor: Extractor, split: str) -> Path:
    """Where the statistics of an extractor are: shipped for the judge, a cache named by the hash for the others.

    Raises:
        ValueError: an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"reference is {split!r}; accepted are {', '.join(SPLITS)}")
    if extractor.name == JUDGE:
        return SHIPPED / f"{split}.safetensors"
    return CACHE / f"{extractor.name}-{extractor.sha256[:12]}-{split}.safetensors"


def reference_statistics(
    extractor: Extractor, split: str, data: str | Path | None = None, device: torch.device | str = "cpu"
) -> Statistics:
    """Statistics of a split: shipped, cached, or computed from `data` and cached.

    Raises:
        FileNotFoundError, ValueError: as in `load_reference` and `load_cifar10`; or the cache is of other images than
            those of `data`.
    """
    file = reference_file(extractor, split)
    if file.parent == SHIPPED or file.exists():
        statistics = load_reference(file, extractor)
        if data and statistics.metadata["images_sha256"] != real_images(data, split).protocol["images_sha256"]:
            raise ValueError(
                f"{file} is of other images than {data}, split {split}; take the CIFAR-10 that it was made from, or "
                "move the file away to have it made again"
            )
        return statistics
    statistics = compute_reference(extractor, split, data, device)
    save_reference(statistics, file)
    return statistics


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.reference", description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="CIFAR-10: a folder or a hub name (default: the variable MOBILEDIFF_DATA)")
    args = parser.parse_args(argv)
    judge = judge_extractor()
    for split in SPLITS:
        statistics = compute_reference(judge, split, args.data)
        save_reference(statistics, SHIPPED / f"{split}.safetensors")
        print(f"{SHIPPED / split}.safetensors: {statistics.n} images, {len(statistics.mu)} features")
    write_real_clip_score(args.data)


def write_real_clip_score(data: str | Path | None) -> None:
    """Write the score of real images under the bundled CLIP and the pipeline's own template of prompts."""
    template = inspect.signature(MobileDiffusionPipeline.__init__).parameters["class_template"].default
    score = score_real_images(bundled_clip(), template, data)
    write_json(SHIPPED_REAL_SCORE, score)
    print(f"{SHIPPED_REAL_SCORE}: {score['clip_score_real']:.2f} over {score['real_n']} images")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
