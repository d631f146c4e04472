"""Describe the layers of a network's call: kind, multiply-accumulates and bytes, whatever runs them."""

from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import NonNegativeInt

from mobilediff.compression.records import Model

Kind = Literal[
    "1x1 convolution",
    "3x3 convolution",
    "depthwise convolution",
    "linear",
    "attention",
    "normalisation",
    "activation",
    "reshape or copy",
    "other",
]
KINDS = get_args(Kind)
# PyTorch's operators, both as a network calls them and as the dispatcher does.
OPERATORS: dict[Kind, str] = {
    "linear": "linear addmm mm",
    "attention": "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu matmul bmm baddbmm",
    "normalisation": "group_norm layer_norm native_group_norm native_layer_norm",
    "activation": "silu relu gelu tanh sigmoid",
    "reshape or copy": "cat clone copy_ _to_copy upsample_nearest2d _unsafe_view",
}
KIND_OF: dict[str, Kind] = {name: kind for kind, names in OPERATORS.items() for name in names.split()}


class Layer(Model):
    """One operator of a network's call.

    Attributes:
        name: of the module that calls it, or its own where no module does.
        operator: of the runtime.
        kind: of the work.
        macs: multiply-accumulates of convolutions and matrix products.
        bytes: of weights, inputs and outputs; 0 of a view.
    """

    name: str
    operator: str
    kind: Kind
    macs: NonNegativeInt
    bytes: NonNegativeInt


def convolution_kind(weight_shape: Sequence[int], groups: int) -> Kind:
    """Name the kind of a convolution.

    Args:
        weight_shape: [C_out, C_in / groups, height, width].
        groups: of the channels.
    """
    if groups > 1 and weight_shape[1] == 1:
        return "depthwise convolution"
    kinds: dict[tuple[int, ...], Kind] = {(1, 1): "1x1 convolution", (3, 3): "3x3 convolution"}
    return kinds.get(tuple(weight_shape[2:]), "other")


def operator_kind(name: str) -> Kind:
    """Name the kind of PyTorch's operators other than convolutions and views, such as "group_norm"."""
    return KIND_OF.get(name, "other")
