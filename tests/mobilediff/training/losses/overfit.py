"""Train on one batch over and over: a loss that its own gradient does not lower is wrong."""

from collections.abc import Callable, Iterable

import torch


def overfit(
    parameters: Iterable[torch.Tensor],
    compute_loss: Callable[[], torch.Tensor],
    *,
    steps: int = 60,
    learning_rate: float = 0.03,
) -> tuple[float, float]:
    """The loss before the first and after the last step of Adam."""
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    first = compute_loss().item()
    for _ in range(steps):
        optimizer.zero_grad()
        compute_loss().backward()
        optimizer.step()
    return first, compute_loss().item()
