"""Draw the cards of a comparison on one sheet, with captions."""

import base64
import io
import textwrap
from pathlib import Path
from typing import Annotated

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, Field, ValidationError

from mobilediff.demo.service.drawing import PNG_URI
from mobilediff.demo.service.inputs import MAX_CHARACTERS, MAX_IMAGES, MAX_SEED, check_text, quoted
from mobilediff.images import decoding

MAX_CARDS, MAX_SIZE, MAX_URI = 32, 128, 100_000  # cards, pixels a side, characters of a picture
SCALE = 4  # of a picture's pixels
CAPTION_WIDTH, GAP, FONT_SIZE, LINE_HEIGHT = 330, 8, 14, 20
FONT = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # Pillow's own has few letters
INK, PAPER = "#1f2328", "#ffffff"

Line = Annotated[str, Field(max_length=120)]


class Card(BaseModel):
    """Hold what the sheet shows of a record of `compare`."""

    name: Line
    prompt: Annotated[str, Field(max_length=MAX_CHARACTERS)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    time: Line
    figures: Annotated[list[Line], Field(max_length=8)] = []
    speed: Line = ""
    quality: Annotated[list[Line], Field(max_length=8)] = []
    images: Annotated[list[Annotated[str, Field(max_length=MAX_URI)]], Field(max_length=MAX_IMAGES)] = []

    def lines(self) -> list[str]:
        """Write the caption beside the pictures, a line each."""
        return [self.name, self.time, *filter(None, [self.speed]), ", ".join(self.figures), *self.quality]


def check_cards(records: object) -> list[Card]:
    """Return the cards that hold pictures.

    Raises:
        ValueError: `records` are not those of `compare`, or none holds pictures.
    """
    if not isinstance(records, list) or len(records) > MAX_CARDS:
        raise ValueError(f"The cards are {quoted(records)}; accepted is a list of up to {MAX_CARDS}.")
    try:
        cards = [Card.model_validate(record, strict=True) for record in records]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "card"
        raise ValueError(f"The cards are none of a comparison: {field}: {first['msg']}.") from error
    for card in cards:
        check_text(card.prompt)
    cards = [card for card in cards if card.images]
    if not cards:
        raise ValueError("No picture has been drawn yet; compare models first.")
    return cards


def read_picture(uri: str) -> Image.Image:
    """Decode a small PNG.

    Raises:
        ValueError: it is none, or larger than `MAX_SIZE`.
    """
    refusal = f"The picture {quoted(uri)} is no PNG."
    with decoding(refusal):  # what is no base64 raises a ValueError, too
        content = base64.b64decode(uri.removeprefix(PNG_URI), validate=True)
        image = Image.open(io.BytesIO(content), formats=["PNG"])
    if max(image.size) > MAX_SIZE:
        raise ValueError(f"A picture is {image.size[0]} x {image.size[1]}; accepted are up to {MAX_SIZE} pixels.")
    with decoding(refusal):
        return image.convert("RGB")


def draw_sheet(records: object) -> bytes:
    """Draw one row a card that holds pictures, captions on the left, as PNG; errors as in the checks of the parts."""
    cards = check_cards(records)
    rows = [[enlarged(read_picture(uri)) for uri in card.images] for card in cards]
    font = ImageFont.truetype(FONT, FONT_SIZE)
    title = textwrap.wrap(f"{cards[0].prompt}   (seed {cards[0].seed})", 80)
    captions = [[part for line in card.lines() for part in textwrap.wrap(line, 42)] for card in cards]
    heights = [
        max(len(caption) * LINE_HEIGHT, *(image.height for image in row)) + GAP
        for caption, row in zip(captions, rows, strict=True)
    ]
    top = len(title) * LINE_HEIGHT + 2 * GAP
    width = CAPTION_WIDTH + max(sum(image.width + GAP for image in row) for row in rows)
    sheet = Image.new("RGB", (max(width, 2 * CAPTION_WIDTH), top + sum(heights)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, line in enumerate(title):
        pen.text((GAP, GAP + i * LINE_HEIGHT), line, INK, font)
    for caption, row, height in zip(captions, rows, heights, strict=True):
        for i, line in enumerate(caption):
            pen.text((GAP, top + i * LINE_HEIGHT), line, INK, font)
        left = CAPTION_WIDTH
        for image in row:
            sheet.paste(image, (left, top))
            left += image.width + GAP
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, format="png")
    return buffer.getvalue()


def enlarged(image: Image.Image) -> Image.Image:
    """Repeat each pixel `SCALE` times in both directions."""
    return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST)
