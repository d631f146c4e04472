"""Losses against a teacher's samples and features."""

import pytest
import torch
from torch import nn

from mobilediff.diffusion import alpha_sigma
from mobilediff.training.losses.distillation import feature_loss, truncated_snr_loss
from tests.mobilediff.training.losses.overfit import overfit


def test_a_prediction_that_sees_one_batch_reaches_its_target():
    torch.manual_seed(0)
    network, noisy = nn.Conv2d(2, 2, 3, padding=1), torch.randn(4, 2, 8, 8)
    target, (alpha, sigma) = 0.5 * noisy, alpha_sigma(torch.tensor([50, 300, 600, 900]))
    first, last = overfit(network.parameters(), lambda: truncated_snr_loss(network(noisy), target, alpha, sigma))
    assert last < first / 4


def test_the_cleaner_of_two_errors_weighs_as_much_more_as_its_signal_to_noise_ratio():
    alpha, sigma = alpha_sigma(torch.tensor([100, 999]))
    target = torch.zeros(2, 2, 4, 4)
    errors = [torch.zeros_like(target), torch.zeros_like(target)]
    for place, error in enumerate(errors):
        error[place] = 1.0
    clean, noise = (truncated_snr_loss(error, target, alpha, sigma).item() for error in errors)
    assert noise == pytest.approx(0.5)  # truncated to a weight of 1, over two images
    assert clean == pytest.approx(0.5 * (alpha / sigma).square()[0].item(), rel=1e-5)


def test_features_that_see_one_batch_reach_the_teachers_whatever_their_size():
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 8, 8)
    networks = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)])
    scaled = [network(inputs).detach() for network in (nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1))]

    def of_one_scale() -> torch.Tensor:
        return feature_loss([network(inputs) for network in networks], scaled)

    student = [network(inputs).detach() for network in networks]
    same = feature_loss([student[0], 100 * student[1]], [scaled[0], 100 * scaled[1]])
    torch.testing.assert_close(same, of_one_scale().detach())
    first, last = overfit(networks.parameters(), of_one_scale)
    assert last < first / 4
