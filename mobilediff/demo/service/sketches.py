"""Read a visitor's sketch as conditions of the control network, and make sketches to start from.

A sketch is dark lines on white paper, and colours. The control network sees white lines on black, 32 x 32 pixels, and
the mean colours of 8 x 8 fields; the one becomes the other in `conditions_of` alone.
"""

import base64
import binascii
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mobilediff.demo.service.drawing import PNG_URI, png_uri
from mobilediff.demo.service.inputs import quoted
from mobilediff.demo.service.uploads import is_uploaded
from mobilediff.downstream.conditions import canny_edges
from mobilediff.images import decoding

SIZE, FIELDS = 32, 8  # pixels of the lines and of the colour map along a side
MAX_SIZE, MAX_BYTES = 1024, 2**22  # of a sketch: pixels along a side, bytes of its file
MODES = ("1", "L", "RGB", "RGBA")
CHROMA = 24  # of 255: between the channels of a colour, above that of a line's or the paper's pixels
LINE = 1 / 3  # part of a pixel that a line covers
INK, PAPER = (0, 0, 0), (255, 255, 255)
COLORS = {
    "red": (200, 50, 40),
    "orange": (235, 150, 50),
    "yellow": (240, 220, 90),
    "green": (70, 130, 60),
    "sky": (140, 190, 235),
    "blue": (40, 90, 170),
    "brown": (120, 80, 45),
    "grey": (100, 115, 135),
}
EXAMPLE_EDGES = range(60, 240)  # pixels of an example's lines: neither a few nor a tangle


@dataclass(frozen=True)
class Sketch:
    """Hold the conditions of one picture.

    Attributes:
        lines: white on black, 32 x 32 pixels of mode L; None where there is no line.
        colors: 8 x 8 pixels of mode RGB; None where nothing is coloured.
    """

    lines: Image.Image | None
    colors: Image.Image | None


def read_sketch(value: object, folder: str | Path) -> Sketch:
    """Read a PNG, as a data URI or an uploaded file.

    Args:
        value: whatever a program sent.
        folder: that gradio keeps uploads in.

    Raises:
        ValueError: it is none; or too large, not square, or a negative.
    """
    accepted = "accepted is a square PNG, as a data URI or an uploaded file"
    if isinstance(value, str) and value.startswith(PNG_URI):
        try:
            content = base64.b64decode(value.removeprefix(PNG_URI), validate=True)
        except (binascii.Error, ValueError) as error:  # the latter where it is no ASCII
            raise ValueError(f"The sketch {quoted(value)} is no PNG; {accepted}.") from error
    elif isinstance(value, dict) and isinstance(value.get("path"), str):
        path = Path(value["path"])
        if not is_uploaded(path, Path(folder)):
            raise ValueError(f"The file {quoted(path.name)} was not uploaded; {accepted}.")
        content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    else:
        raise ValueError(f"The sketch is {quoted(value)}; {accepted}.")
    return conditions_of(_decoded(content))


def _decoded(content: bytes) -> np.ndarray:
    """Decode a PNG on white paper, uint8 [H, W, 3]; errors as in `read_sketch`."""
    if not 0 < len(content) <= MAX_BYTES:
        raise ValueError(f"The sketch is empty or larger than {MAX_BYTES // 2**20} MiB; accepted is a smaller PNG.")
    refusal = "The sketch is no whole PNG; accepted is a square PNG."
    with decoding(refusal):
        image = Image.open(io.BytesIO(content), formats=["PNG"])
        frames = getattr(image, "n_frames", 1)
    width, height = image.size
    if width != height or not SIZE <= width <= MAX_SIZE:
        accepted = f"squares of {SIZE} to {MAX_SIZE:,} a side"
        raise ValueError(f"The sketch is {width} x {height} pixels; accepted are {accepted}.")
    if image.mode not in MODES or frames > 1:
        kind = f"mode {image.mode} and {frames} frames"
        raise ValueError(f"The sketch has {kind}; accepted is one frame of mode {', '.join(MODES)}.")
    with decoding(refusal):
        drawn = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", drawn.size, PAPER), drawn).convert("RGB"))


def conditions_of(picture: np.ndarray) -> Sketch:
    """Separate lines from colours.

    A pixel without hue is a line as far as it is dark, and else paper. Once something is coloured, what is left
    unpainted is white. Under a line the colour is not known: a field has the mean of its other pixels.

    Args:
        picture: dark lines on white paper, uint8 [H, W, 3].

    Raises:
        ValueError: more than half of it is dark, as in a negative.
    """
    values = torch.from_numpy(picture.copy()).permute(2, 0, 1).float()
    colored = (values.amax(0) - values.amin(0) > CHROMA).float()
    ink = (1 - colored) * (1 - values.mean(0) / 255)
    lines = F.adaptive_avg_pool2d(ink[None], SIZE)[0] >= LINE
    if lines.float().mean() > 0.5:
        raise ValueError("More than half of the sketch is dark; accepted are dark lines on white paper.")
    weights = 1 - ink
    known = F.adaptive_avg_pool2d(weights[None], FIELDS)
    sums = F.adaptive_avg_pool2d(weights * torch.where(colored > 0, values, 255.0), FIELDS)
    fields = torch.where(known > 0, sums / known.clamp(min=1e-6), 255.0).round().to(torch.uint8)
    return Sketch(
        Image.fromarray((255 * lines).to(torch.uint8).numpy()) if lines.any() else None,
        Image.fromarray(fields.permute(1, 2, 0).contiguous().numpy()) if colored.any() else None,
    )


def example_sketches(examples: list[dict]) -> list[tuple[str, str]]:
    """Sketch the pictures of precomputed examples: their edges, with and without coarse colours.

    Returns:
        Of each sketch a data URI and the prompt of its picture.
    """
    return [
        (sketch, example["prompt"])
        for example in examples
        for record in example["records"]
        for uri in record["images"]
        for sketch in _sketches_of(uri)
    ]


def _sketches_of(uri: str) -> Iterator[str]:
    """Sketch a picture in black, and in black and `COLORS`; none whose edges are few or a tangle."""
    with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(PNG_URI)))) as image:
        picture = np.asarray(image.convert("RGB").resize((SIZE, SIZE)))
    edges = canny_edges(torch.from_numpy(picture.transpose(2, 0, 1).copy())[None])[0, 0].numpy() > 0
    if edges.sum() not in EXAMPLE_EDGES:
        return
    fields = np.asarray(Image.fromarray(picture).resize((FIELDS, FIELDS), Image.Resampling.BOX)).astype(int)
    crayons = np.array([PAPER, *COLORS.values()])
    nearest = ((fields[:, :, None] - crayons) ** 2).sum(-1).argmin(-1)
    papers = np.full((SIZE, SIZE, 3), 255), crayons[nearest].repeat(SIZE // FIELDS, 0).repeat(SIZE // FIELDS, 1)
    for paper in papers:
        yield png_uri(Image.fromarray(np.where(edges[..., None], INK, paper).astype(np.uint8)))


def blank_sketch() -> str:
    """Encode white paper as a data URI."""
    return png_uri(Image.new("RGB", (SIZE, SIZE), PAPER))
