"""Read a visitor's picture and the mask over it, both brought to the models' size."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from eval.extractors.judge import IMAGE_SIZE
from eval.samples.images import FORMATS, read_image
from mobilediff.demo.service.inputs import quoted
from mobilediff.demo.service.turns import TURNS
from mobilediff.demo.service.uploads import check_head, cut, is_uploaded
from mobilediff.images import decoding

MAX_SIDE = 4096  # pixels of a picture and of a mask
MASK_MODES = ("1", "L", "RGB")
PAINTED = 128  # of 255: brightness of a mask, opacity of a layer of paint
HARD = [255 * (value >= PAINTED) for value in range(256)]  # the table that makes a mask black and white
SIZE = (IMAGE_SIZE, IMAGE_SIZE)


def read_upload(file: object, meaning: str, folder: str | Path) -> tuple[bytes, str]:
    """Read a file that gradio keeps in a folder, and quote its name.

    Raises:
        ValueError: it is no uploaded file; `meaning` says which.
    """
    if not isinstance(file, dict) or not isinstance(file.get("path"), str):
        raise ValueError(f"The {meaning} is {quoted(file)}; accepted is an uploaded file in PNG or JPEG.")
    path = Path(file["path"])
    if not is_uploaded(path, Path(folder)):
        raise ValueError(
            f"The file {quoted(path.name)} was not uploaded; accepted is an uploaded file in PNG or JPEG."
        )
    return path.read_bytes(), quoted(path.name)


def read_picture(file: object, folder: str | Path) -> tuple[Image.Image, tuple[int, int]]:
    """Read a picture, cut to its middle square and brought to 32 x 32 pixels by Lanczos.

    Args:
        file: as gradio hands it on, or whatever a program sent.
        folder: that gradio keeps uploads in.

    Returns:
        RGB, and the width and height that the picture had.

    Raises:
        ValueError: there is none, or it is not a still, opaque PNG or JPEG of up to `MAX_SIDE` pixels a side.
    """
    if file is None:
        raise ValueError("There is no picture; upload one, or draw one.")
    content, name = read_upload(file, "picture", folder)
    with TURNS.of_batch():
        try:
            pixels, _ = read_image(content, name, lambda image: check_head(image, name, MAX_SIDE))
        except ValueError as error:
            raise ValueError(f"The picture {cut(str(error))}.") from error
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        return middle(picture, Image.Resampling.LANCZOS), picture.size


def middle(image: Image.Image, resampling: Image.Resampling) -> Image.Image:
    """Cut an image to its middle square, and bring it to 32 x 32 pixels."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if square.size == SIZE else square.resize(SIZE, resampling)


def read_mask(mask: object, size: tuple[int, int], folder: str | Path) -> Image.Image:
    """Read a mask, 32 x 32 pixels of mode L, 255 where its picture is to be repainted and else 0.

    A pixel is repainted where at least half of it is covered.

    Args:
        mask: an uploaded picture, white where its picture is repainted; or what gradio's editor sends, whose layers
            are painted on there. Whatever a program sent.
        size: width and height of the mask's picture; a layer of the editor is a square instead.
        folder: that gradio keeps uploads in.

    Raises:
        ValueError: there is no mask, it is of another size than its picture or of another kind, or it covers nothing
            or everything.
    """
    if mask is None:
        raise ValueError("There is no mask; paint over the part of the picture that is to be repainted.")
    with TURNS.of_batch():
        covered = _painted(mask, folder) if isinstance(mask, dict) and "layers" in mask else None
        if covered is None:
            content, name = read_upload(mask, "mask", folder)
            covered = _opened(content, name, MASK_MODES).convert("L")
            if covered.size != size:
                sizes = f"{covered.width}x{covered.height} pixels, but its picture {size[0]}x{size[1]}"
                raise ValueError(f"The mask {name} is {sizes}; accepted are masks of the picture's size.")
        hard = covered.point(HARD)
        small = middle(hard, Image.Resampling.BOX).point(HARD)
    low, high = small.getextrema()
    if not high:
        raise ValueError("Nothing is masked; paint over the part of the picture that is to be repainted.")
    if low:
        raise ValueError("The whole picture is masked, so that nothing of it is kept; vary the whole picture instead.")
    return small


def _painted(editor: dict, folder: str | Path) -> Image.Image:
    """Return where the layers of gradio's editor are painted on, of mode L."""
    layers = editor["layers"]
    if not isinstance(layers, list) or len(layers) > 1:
        raise ValueError(f"The layers of the mask are {quoted(layers)}; accepted is a list of one.")
    if not layers:
        raise ValueError("Nothing is masked; paint over the part of the picture that is to be repainted.")
    content, name = read_upload(layers[0], "mask", folder)
    layer = _opened(content, name, ("RGBA",))
    if layer.width != layer.height:
        raise ValueError(f"The layer {name} is {layer.width}x{layer.height} pixels; accepted are square ones.")
    return layer.getchannel("A")


def _opened(content: bytes, name: str, modes: tuple[str, ...]) -> Image.Image:
    """Decode a still image of one of these modes of Pillow.

    Raises:
        ValueError: it is none, damaged or too large; names it.
    """
    refusal = f"The mask {name} is not a whole image in PNG or JPEG."
    with decoding(refusal):
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
    try:
        check_head(image, name, MAX_SIDE)
    except ValueError as error:
        raise ValueError(f"The mask {cut(str(error))}.") from error
    if image.mode not in modes or frames > 1:
        accepted = f"accepted is one frame of mode {' or '.join(modes)}"
        raise ValueError(f"The mask {name} has mode {image.mode} and {frames} frame(s); {accepted}.")
    with decoding(refusal):
        image.load()
    return image
