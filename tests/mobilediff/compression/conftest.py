"""A CLIP of colours in the place of the bundled one, beside the tiny judge of the evaluation's tests."""

import pytest
import torch

from eval.extractors.clip import ClipModel
from eval.measures import fixed_set
from tests.eval.conftest import judge
from tests.mobilediff.training.conftest import data_folder

__all__ = ["data_folder", "judge"]


@pytest.fixture
def clip_of_colours(monkeypatch):
    clip = ClipModel(
        "colours",
        "0" * 64,
        "none",
        lambda images: images.float().mean((2, 3)) + 1,
        lambda texts: torch.tensor([[len(text), 1.0, 2.0] for text in texts]),
    )
    monkeypatch.setattr(fixed_set, "bundled_clip", lambda device: clip)
