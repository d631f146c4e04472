"""Repainted images beside naive ways, by a tiny judge."""

import json

import pytest
import torch
from PIL import Image

import eval.inpaint
from eval.measures.inpaint import compared, mean_colour
from eval.samples.images import ImageSet
from mobilediff.downstream.masks import MASK_KINDS
from tests.eval.stand_ins import random_images


def test_the_mean_colour_is_that_of_the_kept_pixels():
    images, masks = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    images[..., :2], masks[..., 3:] = 0.6, 1
    images[..., 3:] = 9.0
    expected = images.clone()
    expected[..., 3:] = 0.4
    torch.testing.assert_close(mean_colour(images, masks), expected)


def test_a_kept_byte_that_changes_is_counted_and_the_error_is_that_of_the_hole(judge):
    images, masks = random_images(12), torch.zeros(12, 1, 32, 32)
    masks[..., :16] = 1
    changed = images.images.clone().clamp(max=250)
    originals = changed.clone()
    changed[..., :16] += 3
    changed[0, :, 0, 31] += 1
    results = ImageSet(changed, images.class_labels, protocol=images.protocol)
    figures = compared(results, originals, masks, judge, torch.device("cpu"))
    assert figures["error"] == pytest.approx(3) and figures["kept"] == pytest.approx(11 / 12)


def test_the_command_writes_all_ways_and_kinds(checkpoints, judge, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval.inpaint, "real_images", lambda data, split: random_images(40))
    output = tmp_path / "result.json"
    arguments = ["--model", str(checkpoints / "student-1step"), "--json", str(output)]
    eval.inpaint.main([*arguments, "--n", "12", "--plot", str(tmp_path / "rows.png")])
    with Image.open(tmp_path / "rows.png") as image:
        assert image.size == (4 * (8 * 33 + 1), 4 * (9 * 33 + 1))
    written = json.loads(output.read_text())
    assert written["command"] == "eval.inpaint" and list(written["masks"]) == list(MASK_KINDS)
    for figures in written["masks"].values():
        assert figures["model"]["kept"] == figures["neighbours"]["kept"] == 1
        assert figures["model"]["error"] != figures["mean_colour"]["error"]
    assert written["samples"]["nfe"] == 1 and written["n"] == 12
    assert "masks half neighbours class accuracy" in capsys.readouterr().out
    with pytest.raises(ValueError, match="1 images"):
        eval.inpaint.main([*arguments, "--n", "1"])
