"""Masks of every kind."""

import pytest
import torch

from mobilediff.downstream.masks import MASK_KINDS, draw_masks

SHARES = {"box": (1 / 16, 9 / 16), "stroke": (0.01, 0.3), "half": (0.3, 0.7), "all": (0.35, 0.96)}


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_masks_differ_and_keep_and_repaint_a_part(kind):
    masks = draw_masks(kind, 500, 32, torch.Generator().manual_seed(0))
    assert masks.shape == (500, 1, 32, 32) and masks.dtype == torch.float32
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    shares = masks.mean((1, 2, 3))
    low, high = SHARES[kind]
    assert low <= shares.min() and shares.max() <= high and shares.std() > 0.01
    assert torch.equal(masks, draw_masks(kind, 500, 32, torch.Generator().manual_seed(0)))


def test_a_box_is_a_rectangle_and_a_half_plane_has_no_dents():
    for mask in draw_masks("box", 50, 32, torch.Generator().manual_seed(1))[:, 0]:
        assert torch.equal(mask, mask.amax(0, keepdim=True) * mask.amax(1, keepdim=True))
    for mask in draw_masks("half", 50, 32, torch.Generator().manual_seed(1))[:, 0]:
        for line in (*mask, *mask.T):
            assert line.diff().count_nonzero() <= 1


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="mask is 'circle'; accepted are box, stroke, half, all"):
        draw_masks("circle", 1, 32, torch.Generator())
