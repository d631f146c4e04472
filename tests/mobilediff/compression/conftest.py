"""Inputs of a tiny network, and a CLIP of colours beside the tiny judge of the evaluation's tests."""

import pytest
import torch

from eval.extractors.clip import ClipModel
from eval.measures import fixed_set
from tests.eval.conftest import judge
from tests.mobilediff.training.conftest import data_folder
from tests.tiny import HIDDEN_SIZE, LATENT_CHANNELS, LATENT_SIZE, PROJECTION_DIM

__all__ = ["data_folder", "judge"]


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(2, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator),
        "timestep": torch.tensor([10, 900]),
        "encoder_hidden_states": torch.randn(2, 5, HIDDEN_SIZE, generator=generator),
        "class_labels": torch.randn(2, PROJECTION_DIM, generator=generator),
    }


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
