"""Count the parameters and multiply-accumulates of a network call, operator by operator."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _cpu_attention_flops(query_shape, key_shape, value_shape, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query_shape, key_shape, value_shape)


# PyTorch's counter knows the attention kernels of CUDA and of the meta device, but counts the CPU's as zero.
CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops}
FORMULAS = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION).flop_registry


def operator_macs(operator: torch._ops.OpOverload, args: tuple, kwargs: Mapping[str, Any], out: Any) -> int:
    """Count the multiply-accumulates of one call of an operator, by the same rules as `count_params_and_macs`.

    Args:
        operator: as a `TorchDispatchMode` is given it.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        out: what the call returned.
    """
    formula = FORMULAS.get(operator._overloadpacket)
    return formula(*args, **kwargs, out_val=out) // 2 if formula is not None else 0


@torch.no_grad()
def count_params_and_macs(model: nn.Module, inputs: Mapping[str, Any]) -> tuple[int, int]:
    """Count the parameters of `model` and the multiply-accumulates of `model(**inputs)`.

    Convolutions and matrix products are counted, the products inside attention among them; normalisations,
    activations and additions are not. A multiply-accumulate is two floating point operations, so MACs = FLOPs / 2.
    The count depends on shapes alone: on the meta device nothing is computed or stored, and the result is the same.

    Args:
        model: any network, on any device.
        inputs: keyword arguments of its forward, tensors on the model's device. MACs scale with the batch size.

    Returns:
        The number of parameters (a shared one counted once) and the number of multiply-accumulates of the call.

    Raises:
        ValueError: an input tensor is on another device than the model.
    """
    device = next((parameter.device for parameter in model.parameters()), None)
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and device is not None and value.device.type != device.type:
            raise ValueError(f"input {name!r} is on {value.device} but the model is on {device}")
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        model(**inputs)
    params = sum(parameter.numel() for parameter in model.parameters())
    return params, counter.get_total_flops() // 2
