"""Add blocks to a MobileUNet without a change of its output (Net2DeeperNet, arXiv 1511.05641, section 2.2).

The residual branch of a new block ends in zeros. A new ResNet block of the decoder, which takes a skip connection too,
passes on its other input by the convolution around the branch. So a supernet starts from a trained network.
"""

import torch
from torch import nn

from mobilediff.models.mobile_unet import MobileUNet, ResnetBlock, SeparableConv2d, Transformer


@torch.no_grad()
def grow(network: MobileUNet, larger: MobileUNet) -> MobileUNet:
    """Copy a network's weights into a larger one whose further blocks change nothing.

    Args:
        network: the trained one.
        larger: the same config with more `layers_per_block`, `transformer_layers_per_block`, `mid_block_layers` or
            `mid_block_transformer_layers`; changed in place.

    Returns:
        `larger`.

    Raises:
        ValueError: a block of the network has no counterpart in the larger one, or another shape there.
    """
    sources = block_sources(network, larger)
    weights, grown = network.state_dict(), larger.state_dict()
    for name, value in grown.items():
        block = next((block for block in sources if name.startswith(f"{block}.")), None)
        if block is None:
            source = name
        elif (counterpart := sources[block]) is not None:
            source = counterpart + name.removeprefix(block)
        else:
            continue
        if source not in weights or weights[source].shape != value.shape:
            found = list(weights[source].shape) if source in weights else "none"
            raise ValueError(f"{name} has the shape {list(value.shape)}; accepted is that of {source}, {found}")
        value.copy_(weights[source])
    for block, counterpart in sources.items():
        if counterpart is None:
            _silence(larger.get_submodule(block))
    return larger


def block_sources(network: MobileUNet, larger: MobileUNet) -> dict[str, str | None]:
    """Name the block that each ResNet block and transformer of a larger network starts from; None of a new one.

    New ResNet blocks follow the first one of a level on the way up, and all others elsewhere: there each block of the
    network still gets the feature map that it got.

    Raises:
        ValueError: the networks differ in levels, or the larger one has fewer blocks somewhere.
    """
    if len(network.down_blocks) != len(larger.down_blocks):
        raise ValueError(
            f"the larger network has {len(larger.down_blocks)} levels; accepted is {len(network.down_blocks)}"
        )
    sources: dict[str, str | None] = {}
    for name in [f"{way}_blocks.{level}" for way in ("down", "up") for level in range(len(network.down_blocks))]:
        counts = [_counts(one, name) for one in (network, larger)]
        resnets = _spread(f"{name} has {{}} ResNet blocks", counts[0][0], counts[1][0], first=name.startswith("up"))
        each = [attentions // count for count, attentions in counts]
        transformers = _spread(f"{name} has {{}} transformers a ResNet block", *each, first=False)
        for index, source in enumerate(resnets):
            sources[f"{name}.resnets.{index}"] = None if source is None else f"{name}.resnets.{source}"
            for offset, own in enumerate(transformers):
                old = None if source is None or own is None else f"{name}.attentions.{source * each[0] + own}"
                sources[f"{name}.attentions.{index * each[1] + offset}"] = old
    counts = [_counts(one, "mid_block") for one in (network, larger)]
    for kind, old, new in zip(("resnets", "attentions"), *counts, strict=True):
        for index, source in enumerate(_spread(f"mid_block has {{}} {kind}", old, new, first=False)):
            sources[f"mid_block.{kind}.{index}"] = None if source is None else f"mid_block.{kind}.{source}"
    return sources


def _counts(network: MobileUNet, name: str) -> tuple[int, int]:
    """Count the ResNet blocks and the transformers of a level or the middle."""
    level = network.get_submodule(name)
    return len(level.resnets), len(level.attentions)  # pyright: ignore[reportArgumentType] - ModuleLists


def _spread(what: str, old: int, new: int, first: bool) -> list[int | None]:
    """List the old index of each new one; the added ones are behind the first, else behind all."""
    if new < old:
        raise ValueError(f"{what.format(new)}; accepted is {old} or more")
    kept = 1 if first else old
    return [*range(kept), *[None] * (new - old), *range(kept, old)]


def _silence(block: nn.Module) -> None:
    """Make a new block pass on its input, of a ResNet block with a skip connection the part before that."""
    if isinstance(block, Transformer):
        last = block.proj_out
    elif isinstance(block, ResnetBlock):
        last = block.conv2.pointwise if isinstance(block.conv2, SeparableConv2d) else block.conv2
        if block.conv_shortcut is not None:
            nn.init.dirac_(block.conv_shortcut.weight)
            nn.init.zeros_(block.conv_shortcut.bias)  # pyright: ignore[reportArgumentType]
    else:
        raise TypeError(f"a {type(block).__name__} cannot be added; accepted are ResnetBlock and Transformer")
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]
