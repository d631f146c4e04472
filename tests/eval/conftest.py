"""The judge that the evaluation's tests measure by, and the extractor from outside beside it."""

from dataclasses import replace

import pytest

import eval.extractors.judge
import eval.extractors.statistics
import eval.reporting.records
from eval.extractors.base import Extractor
from eval.protocol import folder_sha256
from eval.samples.images import ImageSet
from mobilediff.data import DATA_VARIABLE
from tests.eval.stand_ins import random_images, tiny_judge


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """A tiny judge in the place of the bundled one, with reference statistics of random images."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    folder, reference = tmp_path / "judge", tmp_path / "reference"
    tiny_judge().save_pretrained(folder)
    monkeypatch.setattr(eval.extractors.judge, "JUDGE_FOLDER", folder)
    monkeypatch.setattr(eval.extractors.statistics, "SHIPPED", reference)
    monkeypatch.setattr(eval.extractors.statistics, "CACHE", tmp_path / "cache")
    extractor = eval.extractors.judge.judge_extractor()
    for split, seed in (("train", 1), ("test", 2)):
        keep_statistics(extractor, split, seed)
    return extractor


@pytest.fixture
def outside(judge, tmp_path, monkeypatch):
    """Another tiny network in the place of the extractor from outside, with statistics of the same images."""
    folder = tmp_path / "outside"
    tiny_judge(seed=1).save_pretrained(folder)
    extractor = replace(judge, weights=folder, sha256=folder_sha256(folder), shipped_as="efficientnet-")
    extractor = replace(extractor, result_key="frechet_distance_efficientnet")
    keep_statistics(extractor, "train", 1)
    monkeypatch.setattr(eval.reporting.records, "efficientnet_extractor", lambda: extractor)
    return extractor


def keep_statistics(extractor: Extractor, split: str, seed: int) -> None:
    """Write statistics of 200 random images where those of a split ship."""
    hashed = ImageSet(random_images(200, seed).images, protocol={"images_sha256": "0" * 64})
    statistics = eval.extractors.statistics.compute_reference(extractor, hashed)
    eval.extractors.statistics.save_reference(statistics, eval.extractors.statistics.shipped_file(extractor, split))
