"""The perceptual loss of several tests."""

import pytest
import torch

from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.losses.perceptual import PerceptualLoss


@pytest.fixture
def perceptual_loss() -> PerceptualLoss:
    """A loss on the feature maps of random weights."""
    torch.manual_seed(0)
    return PerceptualLoss(ImageEncoder(block_out_channels=[8, 8], projection_dim=6))
