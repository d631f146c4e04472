"""Take a MobileUNet apart into the modules that its call runs one after the other, for timing each alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from diffusers.models.downsampling import Downsample2D
from torch import nn

from mobilediff.models.mobile_unet import (
    Attention,
    MobileUNet,
    MobileUpBlock,
    ResnetBlock,
    SeparableConv2d,
    Shortcut,
    Transformer,
    Upsample,
)

Kind = Literal["embedding", "stem", "resnet", "shortcut", "transformer", "downsampler", "upsampler", "head"]
KINDS = get_args(Kind)


@dataclass(frozen=True)
class Part:
    """A part of a network's call.

    Attributes:
        name: of its module in the network, or of its kind.
        kind: of the part.
        width: channels of its output, or features of the embedding.
        resolution: height and width of its output, 1 x 1 of the embedding.
        details: all else that its time depends on, in words.
        module: the part alone.
        inputs: tensors of a call of the network, in the order that the module takes them.
    """

    name: str
    kind: Kind
    width: int
    resolution: tuple[int, int]
    details: str
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]

    @property
    def key(self) -> str:
        """Return kind, width, resolution and details: two parts of one key take one time."""
        height, width = self.resolution
        return f"{self.kind} {self.width} @ {height}x{width}: {self.details}"


class Embedding(nn.Module):
    """Time and pooled text of a network, to the activated time embedding."""

    def __init__(self, unet: MobileUNet):
        super().__init__()
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.class_embedding = unet.class_embedding

    def forward(self, timestep: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """Map timesteps [B] and pooled text [B, P] to [B, temb_channels]."""
        temb = self.time_embedding(self.time_proj(timestep).to(self.time_embedding.linear_1.weight.dtype))
        if self.class_embedding is not None and class_labels is not None:
            temb = temb + self.class_embedding(class_labels)
        return F.silu(temb)


class Head(nn.Module):
    """Last normalisation, activation and convolution of a network."""

    def __init__(self, unet: MobileUNet):
        super().__init__()
        self.conv_norm_out, self.conv_out = unet.conv_norm_out, unet.conv_out

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to the prediction [B, out_channels, H, W]."""
        return self.conv_out(F.silu(self.conv_norm_out(hidden_states)))


class Concatenated(nn.Module):
    """A layer of the decoder, which takes a skip connection too."""

    def __init__(self, layer: ResnetBlock | Shortcut):
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states: torch.Tensor, skip: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] and [B, C_skip, H, W] to [B, C_out, H, W], with the time embedding [B, temb_channels]."""
        return self.layer(torch.cat([hidden_states, skip], dim=1), temb)


@torch.no_grad()
def network_parts(unet: MobileUNet, inputs: Mapping[str, torch.Tensor]) -> list[Part]:
    """List the parts that a call of a network runs, in their order.

    A shortcut that is the identity is left out, as it runs nothing.

    Args:
        unet: the network; blocks may be left out of it.
        inputs: of the call: `sample` [B, C, H, W], `timestep` [B], `encoder_hidden_states` [B, L, D] and, where the
            network takes it, `class_labels` [B, P].
    """
    parts = [_embedding_part(unet, inputs)]
    skips: dict[str, torch.Tensor] = {}

    def keep_skips(name: str):
        def hook(block, args):
            residuals = args[1]
            skips.update({f"{name}.resnets.{index}": residuals[-1 - index] for index in range(len(block.resnets))})

        return hook

    def keep_part(name: str):
        def hook(module, args, output):
            parts.append(_part(unet, name, module, args, output, skips.get(name)))

        return hook

    handles = []
    for name, module in unet.named_modules():
        if isinstance(module, MobileUpBlock):
            handles.append(module.register_forward_pre_hook(keep_skips(name)))
        elif name in ("conv_in", "conv_norm_out") or isinstance(
            module, ResnetBlock | Transformer | Shortcut | Downsample2D | Upsample
        ):
            handles.append(module.register_forward_hook(keep_part(name)))
    try:
        unet(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [part for part in parts if not (isinstance(part.module, Shortcut) and part.module.conv_shortcut is None)]


def _embedding_part(unet: MobileUNet, inputs: Mapping[str, torch.Tensor]) -> Part:
    tensors = tuple(inputs[name] for name in ("timestep", "class_labels") if inputs.get(name) is not None)
    first, last = unet.time_embedding.linear_1, unet.time_embedding.linear_2
    pooled = unet.config.projection_class_embeddings_input_dim or 0
    details = f"time {first.in_features}, pooled text {pooled}"
    return Part("time_embedding", "embedding", last.out_features, (1, 1), details, Embedding(unet), tensors)


def _part(unet: MobileUNet, name: str, module: nn.Module, args: tuple, output: torch.Tensor, skip) -> Part:
    """Describe one part from its call; `skip` [B, C_skip, H, W] is of a layer of the decoder, else None."""
    incoming, shape = args[0], tuple(output.shape)
    kind, details = _description(module, incoming)
    if name == "conv_norm_out":
        shape, module = (len(output), unet.config.out_channels, *shape[2:]), Head(unet)
    if skip is not None:
        own = incoming.shape[1] - skip.shape[1]
        hidden_states = incoming[:, :own].contiguous(memory_format=torch.channels_last)
        details = f"in {own} + {skip.shape[1]}, {details.partition(', ')[2]}"
        module, args = Concatenated(module), (hidden_states, skip, args[1])  # pyright: ignore[reportArgumentType]
    return Part(name, kind, shape[1], (shape[2], shape[3]), details.removesuffix(", "), module, args)


def _description(module: nn.Module, incoming: torch.Tensor) -> tuple[Kind, str]:
    """Name the kind of a module, and write down what its time depends on beside its output's shape."""
    channels = incoming.shape[1]
    if isinstance(module, ResnetBlock):
        separable = "separable" if isinstance(module.conv1, SeparableConv2d) else "full"
        inner = module.norm2.num_channels
        return "resnet", f"in {channels}, inner {inner}, {separable}, time {module.time_emb_proj.in_features}"
    if isinstance(module, Shortcut):
        return "shortcut", f"in {channels}, 1x1"
    if isinstance(module, Transformer):
        attentions = [f"self {_heads(module.attn1)}"] if module.attn1 is not None else []
        attentions.append(f"text {module.attn2.to_k.in_features} {_heads(module.attn2)}")
        return "transformer", f"{', '.join(attentions)}, feed-forward {module.ff.out.in_features}"
    if isinstance(module, Downsample2D):
        return "downsampler", f"in {channels}"
    if isinstance(module, Upsample):
        return "upsampler", f"in {channels}"
    return ("stem" if isinstance(module, nn.Conv2d) else "head"), f"in {channels}"


def _heads(attention: Attention) -> str:
    shared = " shared" if attention.share_key_value else ""
    heads = attention.to_q.out_features // attention.head_dim
    return f"{heads}x{attention.head_dim} {attention.kernel}{shared}"
