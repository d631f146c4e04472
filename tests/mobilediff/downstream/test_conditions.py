"""Edges and colour maps of images."""

import pytest
import torch

from mobilediff.downstream.conditions import canny_edges, color_maps


def test_an_edge_lies_along_a_step_and_nowhere_else():
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    images[0, 1, :, 16:] = 255
    edges = canny_edges(images)
    assert edges.shape == (2, 1, 32, 32) and edges.dtype == torch.uint8
    assert set(edges[0, 0].nonzero()[:, 1].tolist()) <= {15, 16}
    assert (edges[0, 0] == 255).sum() == 32
    assert not edges[1].any()


def test_a_faint_step_is_no_edge():
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    images[..., 16:] = 20
    assert not canny_edges(images).any()


@pytest.mark.parametrize("size", [4, 8])
def test_a_color_map_holds_the_means_of_fields(size):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    field = 32 // size
    expected = images[:, :, :field, field : 2 * field].double().mean((2, 3)) / 127.5 - 1
    maps = color_maps(images, size)
    assert maps.shape == (2, 3, size, size)
    torch.testing.assert_close(maps[:, :, 0, 1].double(), expected, atol=1e-5, rtol=0)
