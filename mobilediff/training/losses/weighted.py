"""Sum the terms of a loss."""

from collections.abc import Mapping
from functools import reduce

import torch


def weighted_sum(terms: Mapping[str, torch.Tensor], weights: Mapping[str, float]) -> torch.Tensor:
    """Sum terms, scalars, each times the weight of its name.

    Raises:
        KeyError: a term has no weight.
    """
    return reduce(torch.add, (weights[name] * term for name, term in terms.items()))
