"""Prune a MobileUNet: single weights or whole channels by L1 norm, or whole blocks.

Channels and blocks make the network smaller; single weights stay in it as zeros.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import prune

from mobilediff.compression.blocks import remove_blocks
from mobilediff.models.mobile_unet import GatedFeedForward, MobileUNet, ResnetBlock, SeparableConv2d
from mobilediff.models.variants import variant

Method = Literal["unstructured", "structured", "blocks"]


def check_pruning_ratio(pruning_ratio: float) -> None:
    """Refuse a fraction outside 0 <= ratio < 1: ValueError."""
    if not 0 <= pruning_ratio < 1:
        raise ValueError(f"pruning_ratio is {pruning_ratio}; accepted are fractions from 0 to below 1")


def pruned_network(
    unet: MobileUNet, method: Method, pruning_ratio: float, ordered_blocks: Sequence[str] = ()
) -> MobileUNet:
    """Copy a network pruned by a method.

    Args:
        unet: the network, left as it is.
        method: "unstructured" (single weights), "structured" (inner channels) or "blocks".
        pruning_ratio: fraction of each layer's weights, of each block's inner channels, or of the blocks, rounded.
        ordered_blocks: all blocks, those to remove first in front; of the method "blocks".

    Raises:
        ValueError: a ratio outside 0 <= ratio < 1, or as in `remove_blocks`.
    """
    check_pruning_ratio(pruning_ratio)
    if method == "blocks":
        return remove_blocks(unet, ordered_blocks[: round(pruning_ratio * len(ordered_blocks))])
    if method == "structured":
        return prune_channels(unet, pruning_ratio)
    pruned = copy.deepcopy(unet)
    prune_weights(pruned, pruning_ratio)
    return pruned


@torch.no_grad()
def prune_channels(unet: MobileUNet, pruning_ratio: float) -> MobileUNet:
    """Copy a network without the inner channels of smallest L1 norm.

    Inner channels are those between the two convolutions of a ResNet block and between the two layers of a
    feed-forward. The widths that stay are in the copy's config, so that `from_pretrained` rebuilds it. Inside a ResNet
    block each group of the group normalisation loses as many channels, so that every channel stays in its group.

    Args:
        unet: the network to prune, left as it is.
        pruning_ratio: fraction of the inner channels to remove; ResNet blocks round to whole channels a group.

    Raises:
        ValueError: a ratio outside 0 <= ratio < 1.
    """
    check_pruning_ratio(pruning_ratio)
    groups = unet.config.norm_num_groups
    kept, resnets, resnet_widths, ff_widths = {}, {}, {}, {}
    for name, module in unet.named_modules():
        if isinstance(module, ResnetBlock):
            norms = _output_weight(module.conv1).flatten(1).abs().sum(1)
            per_group = len(norms) // groups
            count = max(1, round(per_group * (1 - pruning_ratio)))
            chosen = norms.view(groups, per_group).topk(count, dim=1).indices.sort(dim=1).values
            kept[name] = (chosen + torch.arange(groups, device=chosen.device)[:, None] * per_group).flatten()
            resnets[name], resnet_widths[name] = module, len(kept[name])
        elif isinstance(module, GatedFeedForward):
            value, gate = module.proj.weight.abs().sum(1).chunk(2)
            count = max(1, round(len(value) * (1 - pruning_ratio)))
            kept[name] = (value + gate).topk(count).indices.sort().values
            ff_widths[name] = count
    pruned = variant(unet, resnet_hidden_channels=resnet_widths, ff_hidden_dims=ff_widths)
    weights = dict(unet.state_dict())
    for name, block in resnets.items():
        _keep_resnet_channels(weights, name, kept[name], block)
    for name in ff_widths:
        _keep_feed_forward_channels(weights, name, kept[name])
    pruned.load_state_dict(weights)
    return pruned


def prunable_layers(unet: MobileUNet) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers by name, in the network's order."""
    return {name: one for name, one in unet.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}


def weight_mask(layer: nn.Conv2d | nn.Linear, pruning_ratio: float) -> torch.Tensor:
    """Return a layer's L1-unstructured mask, of its weight's shape: 0 for the fraction of smallest weights, else 1."""
    weight = layer.weight.contiguous()  # PyTorch's pruning does not take channels_last
    return prune.L1Unstructured(pruning_ratio).compute_mask(weight, torch.ones_like(weight))


@torch.no_grad()
def prune_weights(unet: MobileUNet, pruning_ratio: float) -> dict[str, torch.Tensor]:
    """Zero the smallest weights of each convolution and linear layer, in place.

    This is MobileGen's L1-unstructured pruning.

    Args:
        unet: the network, changed.
        pruning_ratio: fraction of each layer's weights to zero.

    Returns:
        A mask for each pruned parameter, by name, of the parameter's shape: 1 where a weight stays, else 0.

    Raises:
        ValueError: a ratio outside 0 <= ratio < 1.
    """
    check_pruning_ratio(pruning_ratio)
    masks = {}
    for name, layer in prunable_layers(unet).items():
        masks[f"{name}.weight"] = weight_mask(layer, pruning_ratio)
        layer.weight.mul_(masks[f"{name}.weight"])
    return masks


@contextmanager
def pruned_layer(unet: MobileUNet, name: str, pruning_ratio: float) -> Iterator[None]:
    """Zero the smallest weights of one layer of a network within a `with` block, in place.

    Args:
        unet: the network.
        name: of the layer, one of `prunable_layers`.
        pruning_ratio: fraction of its weights.

    Raises:
        ValueError: a ratio outside 0 <= ratio < 1.
    """
    check_pruning_ratio(pruning_ratio)
    layer = prunable_layers(unet)[name]
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.mul_(weight_mask(layer, pruning_ratio))
    try:
        yield
    finally:
        with torch.no_grad():
            layer.weight.copy_(before)


def _output_weight(conv: nn.Conv2d | SeparableConv2d) -> torch.Tensor:
    """Return the weight whose rows are the output channels, [C_out, ...]."""
    return conv.pointwise.weight if isinstance(conv, SeparableConv2d) else conv.weight


def _keep_resnet_channels(weights: dict, name: str, kept: torch.Tensor, block: ResnetBlock) -> None:
    separable = isinstance(block.conv1, SeparableConv2d)
    conv1, conv2 = ("conv1.pointwise", "conv2.depthwise") if separable else ("conv1", "conv2")
    rows = [
        f"{conv1}.weight",
        f"{conv1}.bias",
        "time_emb_proj.weight",
        "time_emb_proj.bias",
        "norm2.weight",
        "norm2.bias",
    ]
    if separable:
        rows.append(f"{conv2}.weight")  # one filter a channel, [C, 1, 3, 3]
        columns = "conv2.pointwise.weight"
    else:
        columns = f"{conv2}.weight"
    for row in rows:
        weights[f"{name}.{row}"] = weights[f"{name}.{row}"][kept]
    weights[f"{name}.{columns}"] = weights[f"{name}.{columns}"][:, kept]


def _keep_feed_forward_channels(weights: dict, name: str, kept: torch.Tensor) -> None:
    width = weights[f"{name}.out.weight"].shape[1]
    both = torch.cat([kept, kept + width])  # value rows, then gate rows
    for parameter in ("proj.weight", "proj.bias"):
        weights[f"{name}.{parameter}"] = weights[f"{name}.{parameter}"][both]
    weights[f"{name}.out.weight"] = weights[f"{name}.out.weight"][:, kept]
