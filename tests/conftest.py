"""Share fixtures among all tests."""

import pytest

import mobilediff.timing


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch):
    """Time small matrix products: without bf16 instructions a large one takes a minute."""
    monkeypatch.setattr(mobilediff.timing, "MATRIX_SIZE", 32)
