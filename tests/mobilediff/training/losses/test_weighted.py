"""The sum of a loss's terms."""

import pytest
import torch

from mobilediff.training.losses.weighted import weighted_sum


def test_each_term_has_the_weight_of_its_name():
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0, requires_grad=True)}
    total = weighted_sum(terms, {"b": 0.5, "a": 10.0, "c": 7.0})
    assert total.item() == 21.5
    assert torch.autograd.grad(total, terms["b"])[0].item() == 0.5
    with pytest.raises(KeyError, match="b"):
        weighted_sum(terms, {"a": 1.0})
