"""Pairs of pictures and images of a style."""

import torch

from mobilediff.training.data.style import assign


def test_each_picture_gets_the_image_that_is_the_most_like_it_and_each_image_one_picture():
    levels = torch.tensor([10, 100, 200, 105])
    pictures = levels[:, None, None, None].expand(4, 3, 32, 32).to(torch.uint8)
    images = pictures[[2, 3, 0, 1]] + torch.tensor([3, 0, 1, 2], dtype=torch.uint8)[:, None, None, None]
    assert assign(pictures, images).tolist() == [2, 3, 0, 1]
    same = torch.cat([pictures[:1]] * 3)
    assert sorted(assign(same, images[:3]).tolist()) == [0, 1, 2]
