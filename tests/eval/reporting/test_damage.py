"""The bundled extractor sees damage: blurred, noised, compressed pictures and those of one kind lie farther off."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from eval.extractors.base import extract_features
from eval.extractors.judge import judge_extractor
from eval.extractors.statistics import reference_statistics
from eval.metrics.kernel import kernel_distance
from eval.metrics.manifold import manifold_metrics

EXAMPLES = Path(__file__).parents[3] / "examples"


def features(pictures: list[Image.Image]) -> torch.Tensor:
    images = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    return extract_features(judge_extractor(), images.contiguous(), ("features",), progress=False)["features"]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """The app's precomputed examples of 32 x 32: six prompts, twenty pictures each, those of a prompt side by side."""
    images = [Image.open(file).convert("RGB") for file in sorted(EXAMPLES.glob("*/*.png"))]
    small = [image for image in images if image.size == (32, 32)]
    assert len(small) == 120
    return small


@pytest.fixture(scope="module")
def real() -> torch.Tensor:
    return reference_statistics(judge_extractor(), "test").kept_features()[:1000]


def distance(real: torch.Tensor, pictures: list[Image.Image]) -> float:
    return kernel_distance(real, features(pictures), subsets=50, subset_size=100)["kernel_distance_mean"]


def noised(picture: Image.Image, index: int) -> Image.Image:
    noise = np.random.default_rng(index).normal(0, 25, (32, 32, 3))
    return Image.fromarray((np.asarray(picture) + noise).round().clip(0, 255).astype(np.uint8))


def compressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, format="jpeg", quality=5)
    return Image.open(buffer).convert("RGB")


@pytest.mark.slow
def test_damage_moves_pictures_away_and_more_of_it_farther(pictures, real):
    whole = distance(real, pictures)
    assert distance(real, [noised(picture, index) for index, picture in enumerate(pictures)]) > 1.5 * whole
    assert distance(real, [compressed(picture) for picture in pictures]) > 1.2 * whole
    little, much = (
        distance(real, [picture.filter(ImageFilter.GaussianBlur(radius)) for picture in pictures]) for radius in (1, 3)
    )
    assert whole < little < much


@pytest.mark.slow
def test_dropping_all_prompts_but_one_costs_coverage_and_distance(pictures, real):
    one_kind = pictures[:20] * 6
    assert distance(real, one_kind) > 1.5 * distance(real, pictures)
    sets = [manifold_metrics(real, features(chosen), k=3) for chosen in (pictures, one_kind)]
    assert sets[1]["coverage"] < sets[0]["coverage"] and sets[1]["recall"] <= sets[0]["recall"]
