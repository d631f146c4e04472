"""Share fixtures among all tests."""

import os
import signal
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: one thread for each of the workers
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import mobilediff.timing
from tests.tiny import KINDS, tiny_checkpoint

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs; child processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
