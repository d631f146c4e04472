"""Load a folder of captioned images: a folder each class or noun."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mobilediff.captions import CLASS_NAMES, load_nouns
from mobilediff.data import ImageDataset
from mobilediff.images import decoding

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # of Pillow, with 8 bits a channel or fewer


def load_image_folder(folder: str | Path, resolution: int) -> ImageDataset:
    """Load the images of a folder of folders, each named after a class or a noun of the captions.

    Args:
        folder: of folders such as "truck" or "fire truck".
        resolution: the images are resized to a square of this side, uint8 [N, 3, R, R].

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a folder has another name, or there is no image, or one is damaged or has more than 8 bits a
            channel.
    """
    nouns, images, labels, noun_ids = load_nouns(), [], [], []
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is no folder; accepted is one of folders of images, a class or noun each")
    for part in sorted(path for path in Path(folder).iterdir() if path.is_dir()):
        if part.name not in CLASS_NAMES and part.name not in nouns:
            raise ValueError(f"{part} is named after no class and no noun of the captions, such as {CLASS_NAMES[0]}")
        label = CLASS_NAMES.index(part.name) if part.name in CLASS_NAMES else nouns[part.name]
        noun_id = -1 if part.name in CLASS_NAMES else list(nouns).index(part.name)
        for file in sorted(file for file in part.iterdir() if file.suffix.lower() in SUFFIXES):
            image = _read(file).resize((resolution, resolution), Image.Resampling.LANCZOS)
            images.append(np.asarray(image))
            labels.append(label)
            noun_ids.append(noun_id)
    if not images:
        raise ValueError(f"{folder} holds no image; accepted are folders of {', '.join(SUFFIXES)}")
    pixels = torch.from_numpy(np.stack(images)).movedim(-1, 1).contiguous()
    return ImageDataset(pixels, torch.tensor(labels), torch.tensor(noun_ids))


def _read(file: Path) -> Image.Image:
    """Read an image as RGB, what is transparent on white; errors as in `load_image_folder`."""
    with decoding(f"{file} is damaged"):
        image = Image.open(file)
    if image.mode not in MODES:
        raise ValueError(f"{file} has mode {image.mode}; accepted are {', '.join(MODES)}")
    with decoding(f"{file} is damaged"), image:
        drawn = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
