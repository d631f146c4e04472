"""Losses of edges and colours."""

import torch

from mobilediff.training.losses.control import color_loss, contrast, edge_loss


def test_contrast_is_the_sobel_gradient_of_the_strongest_channel():
    images = torch.zeros(1, 3, 5, 5)
    images[:, 0, :, 3:] = 0.5
    images[:, 1, :, 3:] = -1.0
    expected = torch.zeros(5, 5)
    expected[:, 2:4] = 4.0  # four times the step of the second channel
    torch.testing.assert_close(contrast(images)[0], expected, atol=2e-3, rtol=0)


def test_edges_count_where_they_are_given_whatever_their_sign():
    images = torch.zeros(2, 3, 8, 8)
    images[:, :, 4:] = 1.0
    given = torch.tensor([1.0, 0.0])
    assert edge_loss(images, -images, given) == 0
    flat = torch.zeros_like(images)
    assert edge_loss(images, flat, given) > 0
    torch.testing.assert_close(edge_loss(images, flat, given) * 2, edge_loss(images, flat, torch.ones(2)))


def test_colors_are_means_of_fields_where_they_are_given():
    images = torch.zeros(2, 3, 8, 8)
    images[:, :, ::2] = 1.0
    right, wrong = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 3, 4, 4)
    assert color_loss(images, right, torch.ones(2)) == 0
    assert color_loss(images, wrong, torch.tensor([1.0, 0.0])) == 0.25 / 2
