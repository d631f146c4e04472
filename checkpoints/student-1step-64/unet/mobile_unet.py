"""Define MobileUNet, the UNet of MobileDiffusion (arXiv 2311.16567), as one configurable class.

The file imports nothing but torch and diffusers, because it travels inside checkpoint folders.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import nn

ATTENTION_PLACEMENTS = ("none", "cross", "both")
ATTENTION_KERNELS = ("softmax", "relu")
FF_ACTIVATIONS = {"swish": F.silu, "geglu": F.gelu}


@dataclass
class MobileUNetOutput(BaseOutput):
    """Hold the output of `MobileUNet`.

    Attributes:
        sample: the prediction, `[batch, out_channels, height, width]`.
    """

    sample: torch.Tensor


def relu_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attend to L keys with weights relu(q k / sqrt(d)) / L, without softmax.

    "Replacing softmax with ReLU in Vision Transformers" (arXiv 2309.08586): the division by the sequence length keeps
    the output's scale that of softmax attention, whose weights average 1 / L. MobileDiffusion fine-tunes a network
    trained with softmax into it. ReLU is positively homogeneous, so both factors go into the query beforehand.

    Args:
        query: `[batch, heads, queries, head_dim]`.
        key: `[batch, heads, keys, head_dim]`.
        value: `[batch, heads, keys, head_dim]`.

    Returns:
        `[batch, heads, queries, head_dim]`.
    """
    scale = query.shape[-1] ** -0.5 / key.shape[-2]
    weights = F.relu(torch.matmul(query * scale, key.transpose(-1, -2)))
    return torch.matmul(weights, value)


class SeparableConv2d(nn.Module):
    """Convolve depthwise by 3 x 3, then pointwise by 1 x 1.

    Only the pointwise convolution has a bias: it would absorb the other's.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `[batch, in_channels, height, width]` to `[batch, out_channels, height, width]`."""
        hidden_states = self.depthwise(hidden_states)
        return self.pointwise(hidden_states)


class ResnetBlock(nn.Module):
    """Convolve twice by 3 x 3, with the time embedding added in between.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        hidden_channels: channels between the two convolutions; `out_channels` unless pruned.
        temb_channels: width of the (already activated) time embedding.
        norm_num_groups: groups of both normalisations.
        separable: depthwise and pointwise convolutions instead of full ones.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        temb_channels: int,
        norm_num_groups: int,
        separable: bool,
    ):
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_num_groups, in_channels, eps=1e-5)
        self.time_emb_proj = nn.Linear(temb_channels, hidden_channels)
        self.norm2 = nn.GroupNorm(norm_num_groups, hidden_channels, eps=1e-5)
        if separable:
            self.conv1 = SeparableConv2d(in_channels, hidden_channels)
            self.conv2 = SeparableConv2d(hidden_channels, out_channels)
        else:
            self.conv1 = nn.Conv2d(in_channels, hidden_channels, 3, padding=1)
            self.conv2 = nn.Conv2d(hidden_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, hidden_states: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        """Map `[batch, in_channels, height, width]` to `[batch, out_channels, height, width]`.

        Args:
            hidden_states: the feature map.
            temb: activated time embedding, `[batch, temb_channels]`.
        """
        residual = hidden_states
        hidden_states = F.silu(self.norm1(hidden_states))
        hidden_states = self.conv1(hidden_states)
        hidden_states = hidden_states + self.time_emb_proj(temb)[:, :, None, None]
        hidden_states = F.silu(self.norm2(hidden_states))
        hidden_states = self.conv2(hidden_states)
        if self.conv_shortcut is not None:
            residual = self.conv_shortcut(residual)
        return residual + hidden_states


class Attention(nn.Module):
    """Attend with several heads.

    Args:
        query_dim: width of the queries' tokens and of the output.
        context_dim: width of the keys' and values' tokens.
        heads: number of heads.
        head_dim: width of a head.
        share_key_value: one projection for key and value (W_k = W_v).
        kernel: "softmax" or "relu".
    """

    def __init__(
        self, query_dim: int, context_dim: int, heads: int, head_dim: int, share_key_value: bool, kernel: str
    ):
        super().__init__()
        inner_dim = heads * head_dim
        self.head_dim = head_dim
        self.share_key_value = share_key_value
        self.kernel = kernel
        self.to_q = nn.Linear(query_dim, inner_dim, bias=False)
        if share_key_value:
            self.to_kv = nn.Linear(context_dim, inner_dim, bias=False)
        else:
            self.to_k = nn.Linear(context_dim, inner_dim, bias=False)
            self.to_v = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_out = nn.Linear(inner_dim, query_dim)

    def forward(self, hidden_states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Let each token attend to the context.

        Args:
            hidden_states: queries, `[batch, queries, query_dim]`.
            context: keys and values, `[batch, keys, context_dim]`.

        Returns:
            `[batch, queries, query_dim]`.
        """
        # [batch, tokens, heads * head_dim] -> [batch, heads, tokens, head_dim], a view
        query = self.to_q(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        if self.share_key_value:
            key = value = self.to_kv(context).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        else:
            key = self.to_k(context).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            value = self.to_v(context).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        if self.kernel == "relu":
            hidden_states = relu_attention(query, key, value)
        else:
            hidden_states = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(hidden_states.transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """Compute value * activation(gate) between two linear layers.

    The gate is Swish, or GELU as in Stable Diffusion.

    Args:
        dim: width of the tokens.
        hidden_dim: width of the gated product; the first layer is twice as wide.
        activation: "swish" or "geglu".
    """

    def __init__(self, dim: int, hidden_dim: int, activation: str):
        super().__init__()
        self.activation = FF_ACTIVATIONS[activation]
        self.proj = nn.Linear(dim, 2 * hidden_dim)
        self.out = nn.Linear(hidden_dim, dim)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map tokens `[batch, tokens, dim]` to the same shape."""
        value, gate = self.proj(hidden_states).chunk(2, dim=-1)
        return self.out(value * self.activation(gate))


class Transformer(nn.Module):
    """Transform the pixels of a feature map: self-attention, cross-attention, feed-forward.

    As in Stable Diffusion 1.5 each of the three is normalised before and residual; two linear projections enclose
    them, and a residual connection encloses all.

    Args:
        channels: channels of the feature map.
        norm_num_groups: groups of the normalisation in front.
        attn1: self-attention; None leaves it out.
        attn2: cross-attention.
        ff: feed-forward.
    """

    def __init__(
        self, channels: int, norm_num_groups: int, attn1: Attention | None, attn2: Attention, ff: GatedFeedForward
    ):
        super().__init__()
        self.norm = nn.GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.norm1 = nn.LayerNorm(channels) if attn1 is not None else None
        self.attn1 = attn1
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = attn2
        self.norm3 = nn.LayerNorm(channels)
        self.ff = ff
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        """Map a feature map `[batch, channels, height, width]` to the same shape.

        Args:
            hidden_states: the feature map.
            encoder_hidden_states: text, `[batch, tokens, cross_attention_dim]`.
        """
        residual = hidden_states
        batch, channels, height, width = hidden_states.shape
        # NCHW -> N(HW)C, and back at the end: both are views where the memory is channels_last
        tokens = self.norm(hidden_states).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        tokens = self.proj_in(tokens)
        if self.attn1 is not None and self.norm1 is not None:
            normed = self.norm1(tokens)
            tokens = tokens + self.attn1(normed, normed)
        tokens = tokens + self.attn2(self.norm2(tokens), encoder_hidden_states)
        tokens = tokens + self.ff(self.norm3(tokens))
        tokens = self.proj_out(tokens)
        return residual + tokens.view(batch, height, width, channels).permute(0, 3, 1, 2)


class Shortcut(nn.Module):
    """Stand for a removed ResNet block or transformer: what is left of it without its residual branch.

    Args:
        conv_shortcut: the 1 x 1 convolution of a ResNet block that changes the number of channels; None for the
            identity.
    """

    def __init__(self, conv_shortcut: nn.Conv2d | None):
        super().__init__()
        self.conv_shortcut = conv_shortcut

    def forward(self, hidden_states: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Map `[batch, in_channels, height, width]` to `[batch, out_channels, height, width]`.

        Args:
            hidden_states: the feature map.
            condition: time embedding or text that the block would take, unused.
        """
        return hidden_states if self.conv_shortcut is None else self.conv_shortcut(hidden_states)


class Upsample(nn.Module):
    """Double the resolution by nearest neighbours, then convolve by 3 x 3.

    diffusers' `Upsample2D` does the same but leaves channels_last from batch 64 on, which costs a copy there and back.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `[batch, channels, height, width]` to `[batch, channels, 2 * height, 2 * width]`."""
        hidden_states = F.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
        return self.conv(hidden_states)


class _Block(nn.Module):
    """Hold the layers of one level: ResNet blocks, each followed by its transformers if any."""

    # Set by ModelMixin.enable_gradient_checkpointing, as the switch below.
    _gradient_checkpointing_func: Callable[..., torch.Tensor]

    def __init__(self, resnets: Sequence[ResnetBlock | Shortcut], attentions: Sequence[Transformer | Shortcut]):
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.attentions_per_resnet = len(attentions) // max(len(resnets), 1)
        self.gradient_checkpointing = False

    def _call(self, layer: nn.Module, *args: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(layer, *args)
        return layer(*args)


class MobileDownBlock(_Block):
    """Encode one level."""

    def __init__(self, resnets, attentions, downsamplers: Sequence[Downsample2D]):
        super().__init__(resnets, attentions)
        self.downsamplers = nn.ModuleList(downsamplers)

    def forward(
        self, hidden_states: torch.Tensor, temb: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Encode a feature map, and keep the ones that the decoder concatenates.

        Args:
            hidden_states: the feature map, `[batch, channels_in, height, width]`.
            temb: activated time embedding, `[batch, temb_channels]`.
            encoder_hidden_states: text, `[batch, tokens, cross_attention_dim]`.

        Returns:
            The level's output, of half the height and width if it has a downsampler, and the outputs of its ResNet
            blocks (with their transformers) and of the downsampler, in order.
        """
        residual_hidden_states = ()
        for index, resnet in enumerate(self.resnets):
            hidden_states = self._call(resnet, hidden_states, temb)
            for offset in range(self.attentions_per_resnet):
                attention = self.attentions[index * self.attentions_per_resnet + offset]
                hidden_states = self._call(attention, hidden_states, encoder_hidden_states)
            residual_hidden_states += (hidden_states,)
        for downsampler in self.downsamplers:
            hidden_states = downsampler(hidden_states)
            residual_hidden_states += (hidden_states,)
        return hidden_states, residual_hidden_states


class MobileMidBlock(_Block):
    """Process the innermost map: the first ResNet block if any, transformers, further ResNet blocks."""

    def forward(
        self, hidden_states: torch.Tensor, temb: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> torch.Tensor:
        """Map a feature map `[batch, channels, height, width]` to the same shape; other inputs as in the levels."""
        if len(self.resnets) > 0:
            hidden_states = self._call(self.resnets[0], hidden_states, temb)
        for attention in self.attentions:
            hidden_states = self._call(attention, hidden_states, encoder_hidden_states)
        for index in range(1, len(self.resnets)):
            hidden_states = self._call(self.resnets[index], hidden_states, temb)
        return hidden_states


class MobileUpBlock(_Block):
    """Decode one level; every ResNet block takes one of the encoder's feature maps too."""

    def __init__(self, resnets, attentions, upsamplers: Sequence[Upsample]):
        super().__init__(resnets, attentions)
        self.upsamplers = nn.ModuleList(upsamplers)

    def forward(
        self,
        hidden_states: torch.Tensor,
        residual_hidden_states: tuple[torch.Tensor, ...],
        temb: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
    ) -> torch.Tensor:
        """Decode a feature map.

        Args:
            hidden_states: the feature map, `[batch, channels_in, height, width]`.
            residual_hidden_states: the encoder's feature maps of the same height and width, one for each ResNet block,
                the last one for the first block.
            temb: activated time embedding, `[batch, temb_channels]`.
            encoder_hidden_states: text, `[batch, tokens, cross_attention_dim]`.

        Returns:
            The level's output, of twice the height and width if it has an upsampler.
        """
        for index, resnet in enumerate(self.resnets):
            hidden_states = torch.cat([hidden_states, residual_hidden_states[-1 - index]], dim=1)
            hidden_states = self._call(resnet, hidden_states, temb)
            for offset in range(self.attentions_per_resnet):
                attention = self.attentions[index * self.attentions_per_resnet + offset]
                hidden_states = self._call(attention, hidden_states, encoder_hidden_states)
        for upsampler in self.upsamplers:
            hidden_states = upsampler(hidden_states)
        return hidden_states


def _per_level(name: str, value, levels: int) -> list:
    """List one value for every level, from a single value or a list of the right length."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * levels
    if len(value) != levels:
        raise ValueError(f"{name} has {len(value)} entries ({list(value)}) but block_out_channels has {levels}")
    return list(value)


def _check_int(name: str, value, minimum: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")


def _check_choice(name: str, value, accepted) -> None:
    if value not in tuple(accepted):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")


def _check_residuals(name: str, residuals: Sequence[torch.Tensor], feature_maps: Sequence[torch.Tensor]) -> None:
    """Refuse residuals that are not of the shapes of the feature maps that they are added to."""
    got, needed = ([list(value.shape) for value in values] for values in (residuals, feature_maps))
    if got != needed:
        raise ValueError(f"{name} must have the shapes {needed}, got {got}")


class StrictConfigMixin(ConfigMixin):
    """Make a network of a config that holds nothing else than its fields."""

    @classmethod
    def extract_init_dict(cls, config_dict, **kwargs):
        """Sort a config's entries, as diffusers does; the name of the code, for its `AutoModel`, is none of them.

        Raises:
            ValueError: an entry is none of this class's, such as one of a newer version, which would be ignored.
        """
        known = inspect.signature(cls.__init__).parameters
        entries = {name: value for name, value in config_dict.items() if name != "auto_map"}
        if unknown := [name for name in entries if name not in known and not name.startswith("_")]:
            raise ValueError(
                f"the config has {', '.join(unknown)}, which this code of {cls.__name__} does not know; accepted are "
                "configs of this version or an older one"
            )
        return super().extract_init_dict(entries, **kwargs)


class MobileUNet(ModelMixin, StrictConfigMixin, PeftAdapterMixin):
    """Predict noise, velocity or sample from noisy latents and text, by a configurable UNet.

    MobileDiffusion's choices (arXiv 2311.16567) are config fields, so every variant is a config. The network is called
    like diffusers' `UNet2DConditionModel` and has the same parts under the same names: `down_blocks` return
    `(hidden_states, residual_hidden_states)`, `mid_block` and `up_blocks` return `hidden_states`.

    A level has `layers_per_block` ResNet blocks on the way down and one more on the way up, which takes the level's
    last skip connection. In a level with attention, transformers follow each of these blocks.

    Args:
        sample_size: height and width of the latents the network is made for; other multiples of
            `2 ** (levels - 1)` work too.
        in_channels: channels of the input.
        out_channels: channels of the prediction.
        block_out_channels: channels of each level, outermost first; multiples of `norm_num_groups`.
        layers_per_block: ResNet blocks of each level on the way down, one number or one a level.
        mid_block_layers: ResNet blocks of the middle, 0 for a middle of transformers alone.
        block_attention: each level's attention, down and up: "none", "cross" (to the text only) or "both"
            (self-attention, then cross-attention).
        mid_block_attention: the same for the middle.
        transformer_layers_per_block: transformers after each ResNet block, one number or one a level.
        mid_block_transformer_layers: transformers of the middle.
        attention_head_dim: width of an attention head, one number or one a level (the middle uses the innermost
            level's); it divides the level's channels. Unlike in diffusers it is not the number of heads.
        cross_attention_dim: width of the text's hidden states.
        share_key_value: one projection serves as key and value in self-attention (W_k = W_v).
        ff_activation: gate of the feed-forward, "swish" or "geglu" (GELU).
        ff_expansion: width of the feed-forward's first layer over its input, **the gate included**, which is the
            paper's convention (8 in Stable Diffusion, 6 in MobileDiffusion): at 6 a level of C channels is projected
            to 6 C, split into value and gate of 3 C each, and their product is projected from 3 C to C.
        separable: depthwise 3 x 3 and pointwise 1 x 1 instead of full convolutions in the ResNet blocks, one
            flag or one a level; the middle follows the innermost level. Resamplers, first and last layer stay full.
        attention_kernel: "softmax", or "relu" (see `relu_attention`).
        norm_num_groups: groups of every group normalisation.
        time_embed_dim: width of the time embedding; None for 4 times the outermost channels.
        projection_class_embeddings_input_dim: width of the pooled text given as `class_labels`, which a linear layer
            adds to the time embedding (diffusers' `class_embed_type="simple_projection"`); None for no such input.
        resnet_hidden_channels: channels between the two convolutions of single ResNet blocks, by module name, such
            as `{"up_blocks.0.resnets.1": 96}`; multiples of `norm_num_groups`. Others keep their level's channels.
        attention_heads: number of heads of single attentions, by module name, such as
            `{"mid_block.attentions.0.attn1": 2}`. Others have channels / `attention_head_dim`.
        ff_hidden_dims: width of the gated product of single feed-forwards, by module name, such as
            `{"mid_block.attentions.0.ff": 160}`. Others have channels * `ff_expansion` / 2.
        removed_blocks: module names of ResNet blocks and transformers that are left out, such as
            `["down_blocks.1.attentions.0"]`: of each only the shortcut around its residual branch stays (see
            `Shortcut`), so that every other block keeps its name, its shapes and its skip connection.

    Raises:
        ValueError: a field is out of its range, has the wrong length, or names a module that does not exist.
    """

    config: Any  # a FrozenDict, whose keys are attributes too
    _supports_gradient_checkpointing = True
    _no_split_modules = ["ResnetBlock", "Transformer"]
    _repeated_blocks = ["ResnetBlock", "Transformer"]

    @register_to_config
    def __init__(
        self,
        sample_size: int = 16,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (64, 96, 128),
        layers_per_block: int | Sequence[int] = (1, 1, 2),
        mid_block_layers: int = 0,
        block_attention: str | Sequence[str] = ("none", "cross", "both"),
        mid_block_attention: str = "both",
        transformer_layers_per_block: int | Sequence[int] = 1,
        mid_block_transformer_layers: int = 1,
        attention_head_dim: int | Sequence[int] = 32,
        cross_attention_dim: int = 128,
        share_key_value: bool = True,
        ff_activation: str = "swish",
        ff_expansion: float = 6.0,
        separable: bool | Sequence[bool] = (False, True, True),
        attention_kernel: str = "softmax",
        norm_num_groups: int = 16,
        time_embed_dim: int | None = None,
        projection_class_embeddings_input_dim: int | None = None,
        resnet_hidden_channels: Mapping[str, int] | None = None,
        attention_heads: Mapping[str, int] | None = None,
        ff_hidden_dims: Mapping[str, int] | None = None,
        removed_blocks: Sequence[str] | None = None,
    ):
        super().__init__()
        self._check_config()
        levels = len(block_out_channels)
        resnets_down = _per_level("layers_per_block", layers_per_block, levels)
        placements = _per_level("block_attention", block_attention, levels)
        transformers = _per_level("transformer_layers_per_block", transformer_layers_per_block, levels)
        temb_channels = time_embed_dim if time_embed_dim is not None else 4 * block_out_channels[0]

        self.time_proj = Timesteps(block_out_channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(block_out_channels[0], temb_channels)
        self.class_embedding = None
        if projection_class_embeddings_input_dim is not None:
            self.class_embedding = nn.Linear(projection_class_embeddings_input_dim, temb_channels)
        self.conv_in = nn.Conv2d(in_channels, block_out_channels[0], 3, padding=1)

        channels = block_out_channels[0]
        skip_channels = [channels]
        self.down_blocks = nn.ModuleList()
        for level, level_channels in enumerate(block_out_channels):
            name = f"down_blocks.{level}"
            resnets, attentions = [], []
            for index in range(resnets_down[level]):
                resnets.append(
                    self._make_resnet(f"{name}.resnets.{index}", level, channels, level_channels, temb_channels)
                )
                attentions += self._make_attentions(
                    f"{name}.attentions", level, placements[level], len(attentions), transformers[level]
                )
                channels = level_channels
                skip_channels.append(channels)
            downsamplers = []
            if level < levels - 1:
                # under the name "op" diffusers registers the convolution once, under its default name twice
                downsamplers = [Downsample2D(channels, use_conv=True, padding=1, name="op")]
                skip_channels.append(channels)
            self.down_blocks.append(MobileDownBlock(resnets, attentions, downsamplers))

        innermost = levels - 1
        self.mid_block = MobileMidBlock(
            [
                self._make_resnet(f"mid_block.resnets.{index}", innermost, channels, channels, temb_channels)
                for index in range(mid_block_layers)
            ],
            self._make_attentions(
                "mid_block.attentions", innermost, mid_block_attention, 0, mid_block_transformer_layers
            ),
        )

        self.up_blocks = nn.ModuleList()
        for block_index, level in enumerate(reversed(range(levels))):
            name = f"up_blocks.{block_index}"
            level_channels = block_out_channels[level]
            resnets, attentions = [], []
            for index in range(resnets_down[level] + 1):
                resnet_in = channels + skip_channels.pop()
                resnets.append(
                    self._make_resnet(f"{name}.resnets.{index}", level, resnet_in, level_channels, temb_channels)
                )
                attentions += self._make_attentions(
                    f"{name}.attentions", level, placements[level], len(attentions), transformers[level]
                )
                channels = level_channels
            upsamplers = [Upsample(channels)] if level > 0 else []
            self.up_blocks.append(MobileUpBlock(resnets, attentions, upsamplers))

        self.conv_norm_out = nn.GroupNorm(norm_num_groups, channels, eps=1e-5)
        self.conv_out = nn.Conv2d(channels, out_channels, 3, padding=1)
        self._check_module_names()

    def _make_resnet(
        self, name: str, level: int, in_channels: int, out_channels: int, temb_channels: int
    ) -> ResnetBlock | Shortcut:
        config = self.config
        if name in (config.removed_blocks or ()):
            return Shortcut(nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None)
        return ResnetBlock(
            in_channels=in_channels,
            out_channels=out_channels,
            hidden_channels=(config.resnet_hidden_channels or {}).get(name, out_channels),
            temb_channels=temb_channels,
            norm_num_groups=config.norm_num_groups,
            separable=_per_level("separable", config.separable, len(config.block_out_channels))[level],
        )

    def _make_attentions(
        self, name: str, level: int, placement: str, first: int, count: int
    ) -> list[Transformer | Shortcut]:
        """Make `count` transformers from `name`.`first` on; none where the placement is "none"."""
        config = self.config
        if placement == "none":
            return []
        channels = config.block_out_channels[level]
        head_dim = _per_level("attention_head_dim", config.attention_head_dim, len(config.block_out_channels))[level]
        heads, ff_hidden_dims = config.attention_heads or {}, config.ff_hidden_dims or {}
        default_heads: int = channels // head_dim
        default_hidden_dim: int = round(channels * config.ff_expansion / 2)
        transformers = []
        for prefix in (f"{name}.{index}" for index in range(first, first + count)):
            if prefix in (config.removed_blocks or ()):
                transformers.append(Shortcut(None))
                continue
            attn1 = None
            if placement == "both":
                attn1 = Attention(
                    query_dim=channels,
                    context_dim=channels,
                    heads=heads.get(f"{prefix}.attn1", default_heads),
                    head_dim=head_dim,
                    share_key_value=config.share_key_value,
                    kernel=config.attention_kernel,
                )
            attn2 = Attention(
                query_dim=channels,
                context_dim=config.cross_attention_dim,
                heads=heads.get(f"{prefix}.attn2", default_heads),
                head_dim=head_dim,
                share_key_value=False,  # the paper shares them in self-attention only
                kernel=config.attention_kernel,
            )
            hidden_dim = ff_hidden_dims.get(f"{prefix}.ff", default_hidden_dim)
            ff = GatedFeedForward(channels, hidden_dim, config.ff_activation)
            transformers.append(Transformer(channels, config.norm_num_groups, attn1, attn2, ff))
        return transformers

    def _check_config(self) -> None:
        """Refuse a field that is out of range, before any layer is made."""
        config = self.config
        channels = config.block_out_channels
        if isinstance(channels, str) or not isinstance(channels, Sequence) or len(channels) == 0:
            raise ValueError(f"block_out_channels must be a list with one entry a level, got {channels!r}")
        levels = len(channels)
        for name in ("sample_size", "in_channels", "out_channels", "cross_attention_dim", "norm_num_groups"):
            _check_int(name, getattr(config, name))
        for name in ("time_embed_dim", "projection_class_embeddings_input_dim"):
            if getattr(config, name) is not None:
                _check_int(name, getattr(config, name))
        _check_int("mid_block_layers", config.mid_block_layers, minimum=0)
        if config.mid_block_layers == 0 and config.mid_block_attention == "none":
            raise ValueError("the middle would be empty: mid_block_layers is 0 and mid_block_attention is 'none'")
        _check_int("mid_block_transformer_layers", config.mid_block_transformer_layers)
        for name in ("layers_per_block", "transformer_layers_per_block", "attention_head_dim"):
            for value in _per_level(name, getattr(config, name), levels):
                _check_int(name, value)
        for value in channels:
            _check_int("block_out_channels", value)
            if value % config.norm_num_groups:
                raise ValueError(
                    f"block_out_channels {value} is no multiple of norm_num_groups {config.norm_num_groups}"
                )
        placements = _per_level("block_attention", config.block_attention, levels)
        for value in placements:
            _check_choice("block_attention", value, ATTENTION_PLACEMENTS)
        _check_choice("mid_block_attention", config.mid_block_attention, ATTENTION_PLACEMENTS)
        _check_choice("attention_kernel", config.attention_kernel, ATTENTION_KERNELS)
        _check_choice("ff_activation", config.ff_activation, FF_ACTIVATIONS)
        for value in _per_level("separable", config.separable, levels):
            _check_choice("separable", value, (True, False))
        _check_choice("share_key_value", config.share_key_value, (True, False))
        if config.sample_size % 2 ** (levels - 1):
            raise ValueError(
                f"sample_size {config.sample_size} is no multiple of {2 ** (levels - 1)}, which {levels} levels need"
            )
        if isinstance(config.ff_expansion, bool) or not isinstance(config.ff_expansion, (int, float)):
            raise ValueError(f"ff_expansion must be a number, got {config.ff_expansion!r}")
        head_dims = _per_level("attention_head_dim", config.attention_head_dim, levels)
        with_attention = [level for level in range(levels) if placements[level] != "none"]
        if config.mid_block_attention != "none":
            with_attention.append(levels - 1)
        for level in with_attention:
            if channels[level] % head_dims[level]:
                raise ValueError(
                    f"attention_head_dim {head_dims[level]} does not divide the {channels[level]} channels of "
                    f"level {level}"
                )
            hidden_dim = channels[level] * config.ff_expansion / 2
            if hidden_dim < 1 or abs(hidden_dim - round(hidden_dim)) > 1e-6:
                raise ValueError(
                    f"ff_expansion {config.ff_expansion} gives level {level} of {channels[level]} channels a gated "
                    f"width of {hidden_dim}; it must be a whole number of at least 1"
                )
        for name in ("resnet_hidden_channels", "attention_heads", "ff_hidden_dims"):
            widths = getattr(config, name)
            if widths is None:
                continue
            if not isinstance(widths, Mapping):
                raise ValueError(f"{name} must map module names to widths, got {widths!r}")
            for module_name, width in widths.items():
                _check_int(f"{name}[{module_name!r}]", width)
        removed = config.removed_blocks
        listed = isinstance(removed, Sequence) and not isinstance(removed, str)
        if removed is not None and not (listed and all(isinstance(name, str) for name in removed)):
            raise ValueError(f"removed_blocks must be a list of module names, got {removed!r}")
        for module_name, width in (config.resnet_hidden_channels or {}).items():
            if width % config.norm_num_groups:
                raise ValueError(
                    f"resnet_hidden_channels[{module_name!r}] = {width} is no multiple of norm_num_groups "
                    f"{config.norm_num_groups}"
                )

    def _check_module_names(self) -> None:
        """Refuse a per-layer width or a removed block whose name no layer has: it would silently change nothing."""
        kinds = {
            "resnet_hidden_channels": ResnetBlock,
            "attention_heads": Attention,
            "ff_hidden_dims": GatedFeedForward,
            "removed_blocks": (ResnetBlock, Transformer, Shortcut),
        }
        for field, kind in kinds.items():
            names = [name for name, module in self.named_modules() if isinstance(module, kind)]
            unknown = sorted(set(getattr(self.config, field) or {}) - set(names))
            if unknown:
                raise ValueError(f"{field} names {unknown[0]!r}, but this network has {', '.join(names) or 'none'}")

    def _check_inputs(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        class_labels: torch.Tensor | None,
    ) -> None:
        config = self.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        if sample.ndim != 4 or sample.shape[1] != config.in_channels:
            raise ValueError(f"sample must be [batch, {config.in_channels}, height, width], got {list(sample.shape)}")
        if sample.shape[2] % factor or sample.shape[3] % factor:
            raise ValueError(f"height and width of sample must be multiples of {factor}, got {list(sample.shape)}")
        batch, text_dim = sample.shape[0], config.cross_attention_dim
        if timestep.numel() != 1 and timestep.shape != (batch,):
            raise ValueError(f"timestep must be one number or [{batch}], got {list(timestep.shape)}")
        text_shape = encoder_hidden_states.shape
        if len(text_shape) != 3 or text_shape[0] != batch or text_shape[2] != text_dim:
            raise ValueError(f"encoder_hidden_states must be [{batch}, tokens, {text_dim}], got {list(text_shape)}")
        pooled_dim = config.projection_class_embeddings_input_dim
        if pooled_dim is None and class_labels is not None:
            raise ValueError("class_labels given to a network without projection_class_embeddings_input_dim")
        if pooled_dim is not None and (class_labels is None or class_labels.shape != (batch, pooled_dim)):
            got = None if class_labels is None else list(class_labels.shape)
            raise ValueError(f"class_labels must be the pooled text, [{batch}, {pooled_dim}], got {got}")

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        down_block_additional_residuals: Sequence[torch.Tensor] | None = None,
        mid_block_additional_residual: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> MobileUNetOutput | tuple[torch.Tensor]:
        """Predict noise, velocity or sample, whichever the network was trained for.

        Args:
            sample: noisy latents, `[batch, in_channels, height, width]`.
            timestep: timesteps of the training schedule, one number or `[batch]`.
            encoder_hidden_states: text, `[batch, tokens, cross_attention_dim]`.
            class_labels: pooled text, `[batch, projection_class_embeddings_input_dim]`.
            down_block_additional_residuals: added to the feature maps that the decoder concatenates, one for each,
                outermost first, of their shapes; those of a `MobileControlNet`.
            mid_block_additional_residual: added to the middle's output, of its shape.
            return_dict: return a `MobileUNetOutput`, else a tuple of one.

        Returns:
            The prediction, `[batch, out_channels, height, width]`.

        Raises:
            ValueError: an input does not have the shape stated here.
        """
        timestep = torch.as_tensor(timestep, device=sample.device)
        self._check_inputs(sample, timestep, encoder_hidden_states, class_labels)

        # 1. time and pooled text
        timestep = timestep.reshape(-1).expand(sample.shape[0])
        temb = self.time_embedding(self.time_proj(timestep).to(sample.dtype))
        if self.class_embedding is not None and class_labels is not None:
            temb = temb + self.class_embedding(class_labels.to(sample.dtype))
        temb = F.silu(temb)  # once, not in every ResNet block

        # 2. down
        hidden_states = self.conv_in(sample)
        residual_hidden_states = (hidden_states,)
        for down_block in self.down_blocks:
            hidden_states, block_residuals = down_block(hidden_states, temb, encoder_hidden_states)
            residual_hidden_states += block_residuals

        # 3. middle
        hidden_states = self.mid_block(hidden_states, temb, encoder_hidden_states)
        if down_block_additional_residuals is not None:
            _check_residuals(
                "down_block_additional_residuals", down_block_additional_residuals, residual_hidden_states
            )
            residual_hidden_states = tuple(map(torch.add, residual_hidden_states, down_block_additional_residuals))
        if mid_block_additional_residual is not None:
            _check_residuals("mid_block_additional_residual", [mid_block_additional_residual], [hidden_states])
            hidden_states = hidden_states + mid_block_additional_residual

        # 4. up
        for up_block in self.up_blocks:
            count = len(up_block.resnets)  # pyright: ignore[reportArgumentType] - a ModuleList
            block_residuals = residual_hidden_states[-count:]
            residual_hidden_states = residual_hidden_states[:-count]
            hidden_states = up_block(hidden_states, block_residuals, temb, encoder_hidden_states)

        # 5. out
        hidden_states = F.silu(self.conv_norm_out(hidden_states))
        sample = self.conv_out(hidden_states)
        if not return_dict:
            return (sample,)
        return MobileUNetOutput(sample=sample)
