"""Lay pictures out as one sheet."""

import torch
from PIL import Image
from torchvision.utils import make_grid

from mobilediff.demo.service.drawing import png_uri

PER_ROW = 10
CSS = """
.sheets { display: flex; flex-wrap: wrap; gap: 16px; }
.sheets figure { flex: 1 1 300px; margin: 0; max-width: 560px; }
.sheets img { width: 100%; margin: 0; image-rendering: pixelated; border-radius: 4px; }
.sheets figcaption { font-weight: 600; margin-bottom: 4px; }
"""


def sheets(pictures: dict[str, torch.Tensor]) -> str:
    """Write HTML with one sheet a caption, of pictures uint8 [N, 3, H, W]; captions are the page's own words."""
    return f'<div class="sheets">{"".join(_sheet(caption, images) for caption, images in pictures.items())}</div>'


def _sheet(caption: str, images: torch.Tensor) -> str:
    grid = make_grid(images, nrow=PER_ROW, padding=1, pad_value=255)
    picture = Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy())
    return f'<figure><figcaption>{caption}</figcaption><img src="{png_uri(picture)}" alt="{caption}"></figure>'
