"""Labels of a grid: every character is drawn, or written as its escape."""

import numpy as np
import pytest
from PIL import Image

from eval.grid import MARGIN, compose_grid, drawable, main

ROWS = [[Image.new("RGB", (32, 32))]]


def label_pixels(label: str) -> np.ndarray:
    grid = np.asarray(compose_grid(ROWS, 1, [label]))
    return grid[:, : -32 - 4]


@pytest.mark.parametrize("letters", [("ü", "ö"), ("ж", "й")])
def test_letters_beyond_ascii_are_drawn_and_not_as_one_box(letters):
    first, second = map(label_pixels, letters)
    assert first.shape != second.shape or (first != second).any()
    assert [drawable(letter) for letter in letters] == list(letters)


def test_what_the_font_lacks_is_written_as_its_escape():
    assert drawable("a 猫") == "a \\u732b" and drawable("a\u202eb\n") == "a\\u202eb\\n"
    assert (label_pixels("猫") == label_pixels("\\u732b")).all()


def test_smaller_images_are_enlarged_to_the_largest():
    small, large = (Image.effect_noise((side, side), 50).convert("RGB") for side in (8, 16))
    grid = np.asarray(compose_grid([[small], [large]], 3))
    assert grid.shape == (2 * 48 + 3 * MARGIN, 48 + 2 * MARGIN, 3)
    for y, image in enumerate((small.resize((16, 16), Image.Resampling.LANCZOS), large)):
        top, cell = MARGIN + y * (48 + MARGIN), np.kron(np.asarray(image), np.ones((3, 3, 1), np.uint8))
        assert (grid[top : top + 48, MARGIN : MARGIN + 48] == cell).all()


def test_an_output_of_another_kind_is_refused_before_any_work():
    with pytest.raises(ValueError, match="--output is grid.jpg; accepted is a file that ends in .png or .webp"):
        main(["--model", "nowhere", "--output", "grid.jpg"])
