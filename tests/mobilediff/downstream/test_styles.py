"""Filters of styles, and folders of images."""

import pytest
import torch
from PIL import Image

from mobilediff.downstream.image_folder import load_image_folder
from mobilediff.downstream.styles import palette, pencil


def test_a_pencil_draws_dark_lines_where_brightness_falls_and_white_elsewhere():
    images = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    images[:, 0] = 120  # a colour, of one brightness
    assert (pencil(images) == 255).all()
    images[..., 16] = 0
    drawn = pencil(images)
    assert (drawn[..., 16] == 0).all() and (drawn[..., :8] == 255).all()
    assert torch.equal(drawn[:, 0], drawn[:, 1]) and torch.equal(drawn[:, 0], drawn[:, 2])


def test_a_palette_has_27_colours_in_blocks_of_two_pixels():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, :, :2, :2] = torch.tensor([60, 70, 250], dtype=torch.uint8)[:, None, None]
    drawn = palette(images)
    assert drawn[0, :, 0, 0].tolist() == [0, 128, 255]
    assert set(drawn.unique().tolist()) <= {0, 128, 255}
    blocks = drawn.unfold(2, 2, 2).unfold(3, 2, 2)
    assert (blocks == blocks[..., :1, :1]).all()
    assert torch.equal(palette(drawn), drawn)


def test_a_folder_names_classes_and_nouns(tmp_path):
    for name in ("truck", "fire truck"):
        (tmp_path / name).mkdir()
        Image.new("RGBA", (64, 48), "red").save(tmp_path / name / "one.png")
    dataset = load_image_folder(tmp_path, 32)
    assert dataset.images.shape == (2, 3, 32, 32) and dataset.images[0, :, 0, 0].tolist() == [255, 0, 0]
    assert dataset.labels.tolist() == [9, 9]
    assert dataset.noun_ids[0] >= 0 and dataset.noun_ids[1] == -1


def test_what_is_transparent_lies_on_white(tmp_path):
    (tmp_path / "truck").mkdir()
    half = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    half.paste((0, 0, 200, 255), (0, 0, 16, 32))
    half.save(tmp_path / "truck/one.png")
    half.quantize(16).save(tmp_path / "truck/two.png")
    images = load_image_folder(tmp_path, 32).images
    assert (images[0, :, :, 16:] == 255).all() and images[0, :, 0, 0].tolist() == [0, 0, 200]
    assert torch.equal(images[0], images[1])


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing is no folder"):
        load_image_folder(tmp_path / "missing", 32)
    with pytest.raises(ValueError, match=f"{tmp_path} holds no image"):
        load_image_folder(tmp_path, 32)
    (tmp_path / "truck").mkdir()
    (tmp_path / "truck/one.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="one.png is damaged"):
        load_image_folder(tmp_path, 32)
    for mode in ("I;16", "I", "F"):
        Image.new(mode, (32, 32), 40000).save(tmp_path / "truck/one.png", format="TIFF")
        with pytest.raises(ValueError, match=f"one.png has mode {mode}; accepted are 1, L"):
            load_image_folder(tmp_path, 32)
    (tmp_path / "dragon").mkdir()
    with pytest.raises(ValueError, match="dragon is named after no class and no noun"):
        load_image_folder(tmp_path, 32)
