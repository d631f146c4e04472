"""Lay pictures out as a grid in one image."""

import torch
from PIL import Image
from torchvision.utils import make_grid

from mobilediff.demo.service.drawing import png_uri

PER_ROW = 10
CSS = """
.grids { display: flex; flex-wrap: wrap; gap: 16px; }
.grids figure { flex: 1 1 300px; margin: 0; max-width: 560px; }
.grids img { width: 100%; margin: 0; image-rendering: pixelated; border-radius: 4px; }
.grids figcaption { font-weight: 600; margin-bottom: 4px; }
"""


def grids(pictures: dict[str, torch.Tensor]) -> str:
    """Write HTML with one grid a caption, of pictures uint8 [N, 3, H, W]; captions are the page's own words."""
    return f'<div class="grids">{"".join(_grid(caption, images) for caption, images in pictures.items())}</div>'


def _grid(caption: str, images: torch.Tensor) -> str:
    grid = make_grid(images, nrow=PER_ROW, padding=1, pad_value=255)
    picture = Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy())
    return f'<figure><figcaption>{caption}</figcaption><img src="{png_uri(picture)}" alt="{caption}"></figure>'
