"""A tiny data set in CIFAR-10's files."""

import numpy as np
import pytest

from mobilediff.captions import load_nouns
from tests.shards import write_shard


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    """24 noise images a split, whose nouns are spread over the classes."""
    folder = tmp_path_factory.mktemp("cifar10")
    generator = np.random.default_rng(0)
    nouns = list(load_nouns().items())[: 24 * 16 : 16]
    for split in ("train", "test"):
        write_shard(
            folder / f"{split}-00000-of-00001.parquet",
            generator.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8),
            [label for _, label in nouns],
            [f"{noun.replace(' ', '_')}_s_{i:06d}.png" for i, (noun, _) in enumerate(nouns)],
        )
    return folder
