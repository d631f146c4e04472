"""Shards in the format of CIFAR-10's parquet files."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def write_shard(file: Path, pixels: np.ndarray, labels: list[int], names: list[str]) -> None:
    """Write images, uint8 [N, H, W, 3], with class labels and file names."""
    images = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    pq.write_table(pa.table({"img": images, "label": labels, "filename": names}), file)
