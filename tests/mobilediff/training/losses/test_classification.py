"""The cross-entropy of known nouns."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobilediff.training.losses.classification import noun_cross_entropy
from tests.mobilediff.training.losses.overfit import overfit


def test_a_head_that_sees_one_batch_learns_its_nouns():
    torch.manual_seed(0)
    head, features, noun_ids = nn.Linear(8, 5), torch.randn(6, 8), torch.tensor([0, 1, 2, 3, 4, -1])
    first, last = overfit(head.parameters(), lambda: noun_cross_entropy(head(features), noun_ids))
    assert last < first / 4


def test_noun_loss_without_nouns_is_0():
    logits = torch.randn(3, 5, requires_grad=True)
    assert noun_cross_entropy(logits, torch.full((3,), -1)).item() == 0
    mixed = noun_cross_entropy(logits, torch.tensor([-1, 2, 4]))
    assert mixed.item() == pytest.approx(F.cross_entropy(logits[1:], torch.tensor([2, 4])).item())
