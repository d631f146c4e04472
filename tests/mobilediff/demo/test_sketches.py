"""A visitor's sketch becomes white lines on black and a coarse colour map; what is no sketch is refused by name."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, PngImagePlugin

from mobilediff.demo.environment import ROOT
from mobilediff.demo.service.drawing import PNG_URI, png_uri
from mobilediff.demo.service.examples import load_examples
from mobilediff.demo.service.sketches import COLORS, SIZE, blank_sketch, example_sketches, read_sketch
from mobilediff.downstream.conditions import canny_edges
from tests.mobilediff.demo.pngs import as_uri, decoded

RED = COLORS["red"]


def paper(size: int = SIZE, mode: str = "RGB") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new(mode, (size, size), "white")
    return image, ImageDraw.Draw(image)


def read(image: Image.Image):
    return read_sketch(as_uri(image), "/nowhere")


def test_lines_are_inverted_once_and_nothing_is_coloured():
    image, pen = paper()
    pen.line([(4, 5), (28, 5)], "black")
    sketch = read(image)
    assert sketch.lines.mode == "L" and sketch.colors is None
    assert np.array_equal(np.asarray(sketch.lines), 255 - np.asarray(image.convert("L")))


def test_nothing_drawn_is_neither_lines_nor_colours():
    sketch = read_sketch(blank_sketch(), "/nowhere")
    assert sketch.lines is None and sketch.colors is None


@pytest.mark.parametrize("size", [320, 500, 1024])
def test_a_large_drawing_with_soft_edges_keeps_its_lines_whole(size):
    image, pen = paper(2 * size)
    width = round(1.5 * 2 * size / SIZE)
    pen.line([(0.1 * 2 * size, 0.33 * 2 * size), (0.9 * 2 * size, 0.33 * 2 * size)], "black", width)
    soft = image.resize((size, size), Image.Resampling.LANCZOS)
    assert len(np.unique(np.asarray(soft))) > 2
    sketch = read(soft)
    lines = np.asarray(sketch.lines) > 0
    assert sketch.colors is None
    assert lines[:, 4:28].any(axis=0).all() and lines.sum(axis=0).max() <= 2
    assert not lines[:, :3].any() and not lines[:8].any() and not lines[13:].any()


def test_colours_are_means_of_fields_without_the_lines_above_them():
    image, pen = paper()
    pen.rectangle([0, 0, 7, 3], RED)
    pen.line([(0, 1), (31, 1)], "black")
    pen.rectangle([8, 4, 9, 7], RED)  # half of a field
    sketch = read(image)
    colors = np.asarray(sketch.colors).astype(int)
    assert colors.shape == (8, 8, 3)
    assert (colors[0, :2] == RED).all() and (colors[0, 2:] == 255).all()
    assert abs(colors[1, 2] - (np.array(RED) + 255) / 2).max() <= 1
    assert (colors[2:] == 255).all()
    assert (np.asarray(sketch.lines)[1] == 255).all() and np.asarray(sketch.lines).sum() == 32 * 255


def test_a_field_that_lines_cover_is_white_beside_colours():
    image, pen = paper()
    pen.rectangle([0, 0, 3, 3], "black")
    pen.rectangle([8, 8, 15, 15], RED)
    assert np.asarray(read(image).colors)[0, 0].tolist() == [255] * 3


def test_what_is_transparent_is_paper():
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).line([(0, 20), (63, 20)], (0, 0, 0, 255), 3)
    lines = np.asarray(read(image).lines)
    assert lines[10].all() and not lines[:9].any() and not lines[12:].any()


def animated() -> str:
    buffer, first = io.BytesIO(), Image.new("RGB", (32, 32))
    first.save(buffer, format="png", save_all=True, append_images=[Image.new("RGB", (32, 32), "white")])
    return as_uri(buffer.getvalue())


def jpeg() -> str:
    buffer = io.BytesIO()
    paper()[0].save(buffer, format="jpeg")
    return as_uri(buffer.getvalue())


def talkative() -> str:
    """A small file whose text unpacks to more than Pillow takes."""
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 2_000_000, zip=True)
    paper()[0].save(buffer, format="png", pnginfo=info)
    return as_uri(buffer.getvalue())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "The sketch is None; accepted is a square PNG, as a data URI or an uploaded file"),
        (7, "The sketch is 7; accepted"),
        ("https://example.org/x.png", "The sketch is 'https://example.org/x.png'; accepted"),
        ({"path": "/etc/passwd", "meta": {}}, "The file 'passwd' was not uploaded; accepted"),
        ({"path": None}, "The sketch is {'path': None}; accepted"),
        (PNG_URI, "The sketch is empty"),
        (f"{PNG_URI}????", "is no PNG"),
        (f"{PNG_URI}é", "is no PNG"),
        (as_uri(b"no picture"), "The sketch is no whole PNG"),
        (as_uri(decoded(blank_sketch())[:60]), "The sketch is no whole PNG"),
        (as_uri(b"\0" * (2**22 + 1)), "larger than 4 MiB"),
        (jpeg(), "The sketch is no whole PNG"),
        (talkative(), "The sketch is no whole PNG"),
        (animated(), "2 frames; accepted is one frame"),
        (png_uri(Image.new("P", (32, 32))), "mode P and 1 frames; accepted is one frame of mode 1, L, RGB, RGBA"),
        (png_uri(Image.new("RGB", (64, 32))), "64 x 32 pixels; accepted are squares of 32 to 1,024 a side"),
        (png_uri(Image.new("L", (31, 31))), "31 x 31 pixels; accepted"),
        (png_uri(Image.new("1", (1025, 1025))), "1025 x 1025 pixels; accepted"),
        (
            png_uri(Image.new("RGB", (32, 32))),
            "More than half of the sketch is dark; accepted are dark lines on white",
        ),
    ],
)
def test_what_is_no_sketch_is_refused_by_name(value, message):
    with pytest.raises(ValueError) as refused:
        read_sketch(value, "/nowhere")
    assert message in str(refused.value)


def test_an_uploaded_file_is_read_up_to_a_size(tmp_path):
    image, pen = paper(100)
    pen.line([(0, 50), (99, 50)], "black", 5)
    image.save(tmp_path / "sketch.png")
    value = {"path": str(tmp_path / "sketch.png"), "meta": {"_type": "gradio.FileData"}}
    assert read_sketch(value, tmp_path).lines.tobytes() == read(image).lines.tobytes()
    (tmp_path / "sketch.png").write_bytes(b"\0" * (2**22 + 1))
    with pytest.raises(ValueError, match="larger than 4 MiB"):
        read_sketch(value, tmp_path)


def test_examples_are_sketched_by_their_own_edges_without_and_with_colours():
    examples = load_examples(ROOT / "examples")
    sketches = example_sketches(examples)
    assert {prompt for _, prompt in sketches} == {example["prompt"] for example in examples}
    pictures = [uri for example in examples for record in example["records"] for uri in record["images"]]
    edges = {
        canny_edges(torch.from_numpy(np.array(Image.open(io.BytesIO(decoded(uri))).convert("RGB").resize((32, 32))))
                    .permute(2, 0, 1)[None]).numpy().tobytes()
        for uri in pictures
    }  # fmt: skip
    plain, colored = ([read_sketch(uri, "/nowhere") for uri, _ in sketches[part::2]] for part in (0, 1))
    assert all(sketch.lines.tobytes() in edges and sketch.colors is None for sketch in plain)
    assert [sketch.lines.tobytes() for sketch in colored] == [sketch.lines.tobytes() for sketch in plain]
    assert sum(sketch.colors is not None for sketch in colored) > len(colored) / 2
