"""The sheet shows every drawn card, and takes only what a comparison answers."""

import base64
import io
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from mobilediff.demo.service.comparison import compare
from mobilediff.demo.service.drawing import PNG_URI, png_uri
from mobilediff.demo.service.sheet import CAPTION_WIDTH, GAP, SCALE, draw_sheet


def card(**changed) -> dict:
    picture = png_uri(Image.new("RGB", (32, 32), "#ff0000"))
    values = {"name": "student", "prompt": "a cat", "seed": 0, "time": "8 ms", "figures": ["NFE 1"]}
    return values | {"images": [picture]} | changed


def read(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return image


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def huge_png(side: int) -> str:
    """The head of a PNG of side x side pixels, which are not there."""
    head = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    return PNG_URI + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"")).decode()


def test_every_picture_of_a_comparison_is_on_the_sheet_pixel_for_pixel(models):
    *_, (records, _) = compare(models, ["student-1step", "teacher"], "a fire truck", 3, 3, threading.Event())
    sheet = np.asarray(read(draw_sheet(records)))
    for record in records:
        for uri in record["images"]:
            picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(PNG_URI)))).convert("RGB"))
            large = picture.repeat(SCALE, 0).repeat(SCALE, 1)
            height, width = large.shape[:2]
            places = [CAPTION_WIDTH + i * (width + GAP) for i in range(3)]
            rows = [top for top in range(sheet.shape[0] - height + 1) for left in places
                    if (sheet[top : top + height, left : left + width] == large).all()]  # fmt: skip
            assert len(rows) == 1


def test_captions_are_written_beside_the_pictures():
    plain, told = read(draw_sheet([card()])), read(draw_sheet([card(speed="7 times as fast", quality=["distance 4"])]))
    ink = [np.asarray(image.convert("L"))[:, :CAPTION_WIDTH].min(1) < 100 for image in (plain, told)]
    assert ink[1].sum() > ink[0].sum() > 30


def test_cards_without_pictures_are_left_out():
    assert draw_sheet([card(), card(images=[], time="failed")]) == draw_sheet([card()])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "No picture has been drawn yet"),
        ([card(images=[])], "No picture has been drawn yet"),
        (None, "cards are None; accepted is a list"),
        ("x" * 10**6, "cards are 'xxx"),
        ([card()] * 33, "accepted is a list of up to 32"),
        ([7], "none of a comparison"),
        ([card(name=None)], "none of a comparison: name: "),
        ([card(time="x" * 121)], "none of a comparison: time: "),
        ([card(seed=True)], "none of a comparison: seed: "),
        ([card(seed=-1)], "none of a comparison: seed: "),
        ([card(prompt="x" * 201)], "none of a comparison: prompt: "),
        ([card(prompt="\ud83d")], "none of a comparison: prompt: "),
        ([card(figures=["x"] * 9)], "none of a comparison: figures: "),
        ([card(images=[png_uri(Image.new("RGB", (32, 32)))] * 9)], "none of a comparison: images: "),
        ([card(images=["x" * 100_001])], "none of a comparison: images.0: "),
        ([card(images=["https://example.com/cat.png"])], "'https://example.com/cat.png' is no PNG"),
        ([card(images=["/etc/passwd"])], "'/etc/passwd' is no PNG"),
        ([card(images=[PNG_URI + base64.b64encode(b"<svg/>").decode()])], "is no PNG"),
        ([card(images=[png_uri(Image.new("RGB", (32, 32)))[:90]])], "is no PNG"),
        ([card(images=[png_uri(Image.new("RGB", (129, 1)))])], "129 x 1; accepted are up to 128"),
        ([card(images=[huge_png(5_000)])], "5000 x 5000; accepted are up to 128"),
        ([card(images=[huge_png(100_000)])], "is no PNG"),
    ],
)
def test_what_no_comparison_answers_is_refused(records, message):
    with pytest.raises(ValueError, match=message):
        draw_sheet(records)
