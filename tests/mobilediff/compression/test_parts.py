"""A network taken apart: its parts in their order, each computing what it computes within the network."""

import pytest
import torch

from mobilediff.compression.blocks import block_names, without_blocks
from mobilediff.compression.parts import network_parts
from mobilediff.models.macs import count_params_and_macs
from tests.tiny import tiny_unet


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return tiny_unet("student-1step-pruned").eval().to(memory_format=torch.channels_last)


def test_keys_have_kind_width_resolution_and_what_else_decides_the_time(unet, inputs):
    attention = "self 4x8 softmax shared, text 16 4x8 softmax"
    assert [(part.name, part.key) for part in network_parts(unet, inputs)] == [
        ("time_embedding", "embedding 64 @ 1x1: time 16, pooled text 12"),
        ("conv_in", "stem 16 @ 16x16: in 4"),
        ("down_blocks.0.resnets.0", "resnet 16 @ 16x16: in 16, inner 16, full, time 64"),
        ("down_blocks.0.downsamplers.0", "downsampler 16 @ 8x8: in 16"),
        ("down_blocks.1.resnets.0", "resnet 32 @ 8x8: in 16, inner 16, separable, time 64"),
        ("down_blocks.1.attentions.0", f"transformer 32 @ 8x8: {attention}, feed-forward 96"),
        ("mid_block.attentions.0", f"transformer 32 @ 8x8: {attention}, feed-forward 20"),
        ("up_blocks.0.resnets.0", "resnet 32 @ 8x8: in 32 + 32, inner 32, separable, time 64"),
        ("up_blocks.0.attentions.0", f"transformer 32 @ 8x8: {attention}, feed-forward 96"),
        ("up_blocks.0.resnets.1", "resnet 32 @ 8x8: in 32 + 16, inner 32, separable, time 64"),
        ("up_blocks.0.attentions.1", f"transformer 32 @ 8x8: {attention}, feed-forward 96"),
        ("up_blocks.0.upsamplers.0", "upsampler 32 @ 16x16: in 32"),
        ("up_blocks.1.resnets.0", "resnet 16 @ 16x16: in 32 + 16, inner 16, full, time 64"),
        ("up_blocks.1.resnets.1", "resnet 16 @ 16x16: in 16 + 16, inner 16, full, time 64"),
        ("conv_norm_out", "head 4 @ 16x16: in 16"),
    ]


def test_a_removed_block_leaves_its_convolution_or_nothing(unet, inputs):
    with without_blocks(unet, block_names(unet)):
        left = [part.key for part in network_parts(unet, inputs) if part.kind not in ("embedding", "stem", "head")]
    assert left == [
        "downsampler 16 @ 8x8: in 16",
        "shortcut 32 @ 8x8: in 16, 1x1",
        "shortcut 32 @ 8x8: in 32 + 32, 1x1",
        "shortcut 32 @ 8x8: in 32 + 16, 1x1",
        "upsampler 32 @ 16x16: in 32",
        "shortcut 16 @ 16x16: in 32 + 16, 1x1",
        "shortcut 16 @ 16x16: in 16 + 16, 1x1",
    ]


@torch.no_grad()
@pytest.mark.parametrize("stripped", [False, True])
def test_parts_one_after_the_other_are_the_network(unet, inputs, stripped):
    with without_blocks(unet, block_names(unet) if stripped else []):
        expected, parts = unet(**inputs).sample, network_parts(unet, inputs)
        temb = parts[0].module(*parts[0].inputs)
        hidden_states = parts[1].module(*parts[1].inputs)
        # the first ResNet block's feature map is its input's where it is the identity, which is no part
        feature_maps = [hidden_states] * (2 if stripped else 1)
        for part in parts[2:]:
            others = part.inputs[1:]
            if part.name.startswith("up_blocks") and "resnets" in part.name:
                others = (feature_maps.pop(), temb)
            elif part.kind in ("resnet", "shortcut"):
                others = (temb,)
            hidden_states = part.module(hidden_states, *others)
            # a level's feature map is that after its last transformer, or what its only layer gives
            if part.name == "down_blocks.1.attentions.0":
                feature_maps[-1] = hidden_states
            elif part.name.startswith("down_blocks"):
                feature_maps.append(hidden_states)
    torch.testing.assert_close(hidden_states, expected, rtol=1e-4, atol=1e-5)
    assert not feature_maps


def test_multiply_accumulates_add_up(unet, inputs):
    whole = count_params_and_macs(unet, inputs)[1]
    names = "abcd"
    macs = 0
    for part in network_parts(unet, inputs):
        wrapped = _Named(part.module)
        macs += count_params_and_macs(wrapped, dict(zip(names, part.inputs, strict=False)))[1]
    assert macs == whole > 0


class _Named(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **tensors):
        return self.module(*tensors.values())
