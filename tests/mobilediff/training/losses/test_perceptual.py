"""Feature maps compared."""

import torch

from mobilediff.images import to_float
from mobilediff.training.losses.perceptual import LatentPerceptualLoss
from tests.mobilediff.training.losses.overfit import overfit


def test_images_that_see_one_target_come_to_look_like_it(perceptual_loss):
    loss, targets = perceptual_loss, torch.rand(2, 3, 32, 32) * 2 - 1
    assert loss(targets, targets).item() == 0
    images = torch.zeros_like(targets).requires_grad_()
    first, last = overfit([images], lambda: loss(images, targets))
    assert last < first / 4
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_latents_are_compared_with_the_target_of_their_number(perceptual_loss):
    loss, targets = perceptual_loss, torch.rand(3, 3, 16, 16) - 0.5

    def decode(latents):
        return latents.repeat_interleave(2, -1).repeat_interleave(2, -2)

    of_latents = LatentPerceptualLoss(loss, decode, targets)
    target_ids = torch.tensor([2, 0])
    expected = loss(decode(targets[[1, 1]]), to_float(of_latents.targets[target_ids]))
    assert of_latents.targets.dtype == torch.uint8
    torch.testing.assert_close(of_latents(targets[[1, 1]], target_ids), expected)
    latents = targets[[1, 1]].requires_grad_()
    first, last = overfit([latents], lambda: of_latents(latents, target_ids))
    assert last < first / 4
