"""The judge that the evaluation's tests measure by."""

import pytest

import eval.extractors.judge
import eval.extractors.statistics
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
        images = random_images(200, seed)
        hashed = ImageSet(images.images, protocol={"images_sha256": "0" * 64})
        eval.extractors.statistics.save_reference(
            eval.extractors.statistics.compute_reference(extractor, hashed), reference / f"{split}.safetensors"
        )
    return extractor
