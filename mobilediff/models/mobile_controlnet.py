"""Define MobileControlNet, which steers a MobileUNet by edges and colours (ControlNet, arXiv 2302.05543)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import nn

from mobilediff.models.mobile_unet import MobileDownBlock, MobileUNet, ResnetBlock, StrictConfigMixin

# Planes of a condition: edges, three of colours, and of each of the two whether it is given.
CONDITIONING_CHANNELS = 6
# Pixels of a condition along a latent pixel's side.
CONDITIONING_SCALE = 2


@dataclass
class MobileControlNetOutput(BaseOutput):
    """Hold the residuals of `MobileControlNet`, named as diffusers' `ControlNetOutput` does.

    Attributes:
        down_block_res_samples: one for each feature map that the UNet's decoder concatenates, outermost first.
        mid_block_res_sample: for the middle's output.
    """

    down_block_res_samples: tuple[torch.Tensor, ...]
    mid_block_res_sample: torch.Tensor


def _zero_convolution(channels: int) -> nn.Conv2d:
    """Make a 1 x 1 convolution that starts at zero."""
    convolution = nn.Conv2d(channels, channels, 1)
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType] - there is one
    return convolution


class MobileControlNet(ModelMixin, StrictConfigMixin):
    """Compute residuals for the levels of a `MobileUNet` from edges and colours.

    An encoder with the UNet's levels, of ResNet blocks alone, sees the noisy latents, the time, the pooled text and
    the condition. Its outputs pass 1 x 1 convolutions that start at zero, so that an untrained one changes nothing.

    Args:
        sample_size: height and width of the latents; a condition has twice as many pixels along a side.
        in_channels: channels of the latents.
        block_out_channels: channels of each level, the UNet's.
        layers_per_block: ResNet blocks of each level, the UNet's, one number or one a level.
        norm_num_groups: groups of every group normalisation.
        projection_class_embeddings_input_dim: width of the pooled text given as `class_labels`.
    """

    config: Any  # a FrozenDict, whose keys are attributes too

    @register_to_config
    def __init__(
        self,
        sample_size: int = 16,
        in_channels: int = 4,
        block_out_channels: Sequence[int] = (64, 160),
        layers_per_block: int | Sequence[int] = 1,
        norm_num_groups: int = 16,
        projection_class_embeddings_input_dim: int = 128,
    ):
        super().__init__()
        levels, channels = len(block_out_channels), block_out_channels[0]
        resnets = [layers_per_block] * levels if isinstance(layers_per_block, int) else list(layers_per_block)
        temb_channels = 4 * channels
        self.time_proj = Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(channels, temb_channels)
        self.class_embedding = nn.Linear(projection_class_embeddings_input_dim, temb_channels)
        self.conv_in = nn.Conv2d(in_channels + CONDITIONING_CHANNELS * CONDITIONING_SCALE**2, channels, 3, padding=1)
        zero_convolutions = [_zero_convolution(channels)]
        self.down_blocks = nn.ModuleList()
        for level, level_channels in enumerate(block_out_channels):
            layers = []
            for _ in range(resnets[level]):
                layers.append(
                    ResnetBlock(channels, level_channels, level_channels, temb_channels, norm_num_groups, False)
                )
                channels = level_channels
                zero_convolutions.append(_zero_convolution(channels))
            downsamplers = []
            if level < levels - 1:
                downsamplers = [Downsample2D(channels, use_conv=True, padding=1, name="op")]
                zero_convolutions.append(_zero_convolution(channels))
            self.down_blocks.append(MobileDownBlock(layers, [], downsamplers))
        self.mid_block = ResnetBlock(channels, channels, channels, temb_channels, norm_num_groups, True)
        self.controlnet_down_blocks = nn.ModuleList(zero_convolutions)
        self.controlnet_mid_block = _zero_convolution(channels)

    @classmethod
    def from_unet(cls, unet: MobileUNet) -> "MobileControlNet":
        """Make one for a UNet, with random weights but for the last layers, which are zero."""
        names = ("sample_size", "in_channels", "block_out_channels", "layers_per_block", "norm_num_groups")
        fields = {name: unet.config[name] for name in (*names, "projection_class_embeddings_input_dim")}
        return cls(**fields).to(unet.device)  # pyright: ignore[reportArgumentType] - it is decorated

    @property
    def condition_size(self) -> int:
        """Return the height and width of a condition."""
        return CONDITIONING_SCALE * self.config.sample_size

    @staticmethod
    def join_conditions(
        edges: torch.Tensor, colors: torch.Tensor, has_edges: torch.Tensor, has_colors: torch.Tensor
    ) -> torch.Tensor:
        """Join edges and colours into conditions; what is missing is 0.

        Args:
            edges: in [0, 1], `[batch, 1, height, width]`.
            colors: in [-1, 1], `[batch, 3, h, w]`, enlarged by nearest neighbours.
            has_edges, has_colors: 1 where they are given and 0 where not, `[batch]`.

        Returns:
            `[batch, 6, height, width]`, as `MobileControlNet` takes it.
        """
        colors = F.interpolate(colors, size=edges.shape[-2:], mode="nearest")
        flags = [flag.to(edges.dtype)[:, None, None, None].expand_as(edges) for flag in (has_edges, has_colors)]
        return torch.cat([edges * flags[0], colors * flags[1], *flags], dim=1)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        controlnet_cond: torch.Tensor,
        class_labels: torch.Tensor,
        conditioning_scale: float = 1.0,
        return_dict: bool = True,
    ) -> MobileControlNetOutput | tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Compute the residuals.

        Args:
            sample: noisy latents, `[batch, in_channels, height, width]`.
            timestep: timesteps of the training schedule, one number or `[batch]`.
            controlnet_cond: the condition, `[batch, 6, 2 * height, 2 * width]`: edges in [0, 1], colours in [-1, 1],
                and two planes that are 1 where edges or colours are given; what is missing is 0.
            class_labels: pooled text, `[batch, projection_class_embeddings_input_dim]`.
            conditioning_scale: the residuals' factor.
            return_dict: return a `MobileControlNetOutput`, else a tuple of its fields.

        Raises:
            ValueError: the condition does not have the shape stated here.
        """
        batch, _, height, width = sample.shape
        needed = [batch, CONDITIONING_CHANNELS, CONDITIONING_SCALE * height, CONDITIONING_SCALE * width]
        if list(controlnet_cond.shape) != needed:
            raise ValueError(f"controlnet_cond must be {needed}, got {list(controlnet_cond.shape)}")
        timestep = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        temb = self.time_embedding(self.time_proj(timestep).to(sample.dtype))
        temb = F.silu(temb + self.class_embedding(class_labels.to(sample.dtype)))
        condition = F.pixel_unshuffle(controlnet_cond.to(sample.dtype), CONDITIONING_SCALE)
        hidden_states = self.conv_in(torch.cat([sample, condition], dim=1))
        feature_maps = (hidden_states,)
        for down_block in self.down_blocks:
            hidden_states, block_maps = down_block(hidden_states, temb, None)
            feature_maps += block_maps
        hidden_states = self.mid_block(hidden_states, temb)
        residuals = tuple(
            conditioning_scale * convolution(feature_map)
            for convolution, feature_map in zip(self.controlnet_down_blocks, feature_maps, strict=True)
        )
        mid_residual = conditioning_scale * self.controlnet_mid_block(hidden_states)
        if not return_dict:
            return residuals, mid_residual
        return MobileControlNetOutput(down_block_res_samples=residuals, mid_block_res_sample=mid_residual)
