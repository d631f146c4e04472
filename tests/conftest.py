"""Share fixtures among all tests."""

from pathlib import Path

import pytest

import mobilediff.timing
from tests.tiny import KINDS, tiny_checkpoint


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch):
    """Time small matrix products: without bf16 instructions a large one takes a minute."""
    monkeypatch.setattr(mobilediff.timing, "MATRIX_SIZE", 32)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Path:
    """A folder with a tiny checkpoint of every kind, by name, to read alone."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for kind in KINDS:
        tiny_checkpoint(folder / kind, kind)
    return folder
