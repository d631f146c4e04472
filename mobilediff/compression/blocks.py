"""Leave ResNet blocks and transformers out of a MobileUNet, for a call or for good.

What is left of a block is its shortcut: the identity, or the 1 x 1 convolution of a ResNet block that changes the
number of channels, as each of the decoder does, which takes a skip connection too. So every block can be left out, and
the others keep their names, shapes and weights.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch

from mobilediff.models.mobile_unet import MobileUNet, ResnetBlock, Shortcut, Transformer
from mobilediff.models.variants import variant

WIDTHS = ("resnet_hidden_channels", "attention_heads", "ff_hidden_dims")


def block_names(unet: MobileUNet) -> list[str]:
    """List the module names of the ResNet blocks and transformers that a network has, in its own order."""
    return [name for name, module in unet.named_modules() if isinstance(module, ResnetBlock | Transformer)]


def check_block_names(unet: MobileUNet, names: Collection[str]) -> None:
    """Refuse names that are of no block of a network.

    Raises:
        ValueError: naming one, and those that the network has.
    """
    present = block_names(unet)
    if unknown := sorted(set(names) - set(present)):
        raise ValueError(f"block is {unknown[0]!r}; accepted are {', '.join(present) or 'none, the network has none'}")


@contextmanager
def without_blocks(unet: MobileUNet, names: Collection[str]) -> Iterator[None]:
    """Leave blocks out of a network within a `with` block, in place; errors as in `check_block_names`.

    The shortcut's convolution stays the block's own, so that gradients reach it.
    """
    check_block_names(unet, names)
    blocks = {name: unet.get_submodule(name) for name in names}
    for name, block in blocks.items():
        unet.set_submodule(name, Shortcut(block.conv_shortcut if isinstance(block, ResnetBlock) else None))
    try:
        yield
    finally:
        for name, block in blocks.items():
            unet.set_submodule(name, block)


@torch.no_grad()
def remove_blocks(unet: MobileUNet, names: Collection[str]) -> MobileUNet:
    """Copy a network without some blocks, with the weights of the others.

    The removed blocks are in the copy's config, beside those that the network lacked before, so that `from_pretrained`
    rebuilds it.

    Args:
        unet: the network, left as it is.
        names: module names of ResNet blocks and transformers.

    Raises:
        ValueError: as in `check_block_names`.
    """
    check_block_names(unet, names)
    removed = [name for name, module in unet.named_modules() if name in names or isinstance(module, Shortcut)]
    prefixes = tuple(f"{name}." for name in removed)
    widths = {field: unet.config[field] for field in WIDTHS if unet.config[field]}
    changes = {
        field: {name: width for name, width in widths.items() if name not in names and not name.startswith(prefixes)}
        for field, widths in widths.items()
    }
    smaller = variant(unet, removed_blocks=removed, **changes)
    weights = unet.state_dict()
    smaller.load_state_dict({name: weights[name] for name in smaller.state_dict()})
    return smaller
