"""A tiny data set in CIFAR-10's files."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mobilediff.captions import load_nouns


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    """24 noise images a split, whose nouns are spread over the classes."""
    folder = tmp_path_factory.mktemp("cifar10")
    generator = np.random.default_rng(0)
    nouns = list(load_nouns().items())
    for split in ("train", "test"):
        images, labels, names = [], [], []
        for i in range(24):
            buffer = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, format="PNG")
            noun, label = nouns[i * 16]
            images.append({"bytes": buffer.getvalue(), "path": None})
            labels.append(label)
            names.append(f"{noun.replace(' ', '_')}_s_{i:06d}.png")
        table = pa.table({"img": images, "label": labels, "filename": names})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder
