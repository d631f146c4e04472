"""Train at weights that are rounded to float16, while the optimiser learns them in float32."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@torch.no_grad()
def round_to_float16(tensors: Iterable[torch.Tensor]) -> None:
    """Round float32 tensors of any shape to the nearest float16 in place, ties to even, beyond 65,504 to infinity."""
    tensors = list(tensors)
    torch._foreach_copy_(tensors, [tensor.half() for tensor in tensors])


class RoundedWeights:
    """Keep a network's parameters rounded to float16, and beside them the float32 ones that are learned.

    Losses are computed in float32 at weights that a float16 file holds exactly. Their gradients update the float32
    weights as if nothing had been rounded (straight-through estimator, Bengio et al., arXiv 1308.3432): most updates
    are smaller than half a step of float16 and would be lost (Micikevicius et al., arXiv 1710.03740, section 3.1).
    The cast follows each optimiser step, since weights change nowhere else, so every call of the network has it,
    compiled or not.

    MobileGen describes its "quantization aware training" as "shifts to the float16 weight space" of the UNet. Its
    notebook `base_model_v2` does so by autocast to float16, which casts the weights of convolutions and linear layers
    at each call, and computes in float16 too; here all weights are cast, and nothing else is.

    Args:
        network: whose parameters that require a gradient are rounded, in place.

    Attributes:
        learned: the float32 weights, in the order of the parameters.
    """

    def __init__(self, network: nn.Module):
        self.parameters: list[torch.Tensor] = [
            parameter for parameter in network.parameters() if parameter.requires_grad
        ]
        self.learned = [parameter.detach().clone() for parameter in self.parameters]
        round_to_float16(self.parameters)

    @contextmanager
    def unrounded(self) -> Iterator[None]:
        """Give the network its learned weights for a `with` block that may change them, then round these."""
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.learned)
        yield
        with torch.no_grad():
            torch._foreach_copy_(self.learned, self.parameters)
        round_to_float16(self.parameters)
