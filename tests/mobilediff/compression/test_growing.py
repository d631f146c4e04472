"""A network copied into a larger one whose further blocks change nothing."""

import pytest
import torch

from mobilediff.compression.blocks import block_names, remove_blocks
from mobilediff.compression.growing import block_sources, grow
from mobilediff.models.variants import variant
from tests.tiny import tiny_unet


@pytest.fixture
def unet():
    torch.manual_seed(0)
    unet = tiny_unet("student-1step").eval()
    for parameter in unet.parameters():  # trained: no branch ends in zeros, no shortcut is the identity
        torch.nn.init.normal_(parameter, std=0.2)
    return unet


@pytest.mark.parametrize(
    "changes",
    [
        {"layers_per_block": 2},
        {"layers_per_block": [1, 3], "mid_block_transformer_layers": 3},
        {"mid_block_layers": 2, "transformer_layers_per_block": 2},
    ],
)
@torch.no_grad()
def test_the_larger_network_computes_the_same(unet, inputs, changes):
    larger = grow(unet, variant(unet, **changes).eval())
    assert len(block_names(larger)) > len(block_names(unet))
    torch.testing.assert_close(larger(**inputs).sample, unet(**inputs).sample, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_grown_network_grows_again_from_two_layers(unet, inputs):
    larger = grow(unet, variant(unet, layers_per_block=2).eval())
    torch.manual_seed(1)
    for parameter in larger.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    again = grow(larger, variant(larger, layers_per_block=3).eval())
    torch.testing.assert_close(again(**inputs).sample, larger(**inputs).sample, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_without_its_new_blocks_it_is_the_network_again(unet, inputs):
    larger = grow(unet, variant(unet, layers_per_block=2, mid_block_transformer_layers=2).eval())
    new = [name for name, source in block_sources(unet, larger).items() if source is None]
    assert new == [
        "down_blocks.0.resnets.1",
        "down_blocks.1.resnets.1",
        "down_blocks.1.attentions.1",
        "up_blocks.0.resnets.1",
        "up_blocks.0.attentions.1",
        "up_blocks.1.resnets.1",
        "mid_block.attentions.1",
    ]
    torch.nn.init.normal_(larger.get_submodule("mid_block.attentions.1").proj_out.weight)
    assert not torch.allclose(larger(**inputs).sample, unet(**inputs).sample)
    torch.testing.assert_close(
        remove_blocks(larger, new)(**inputs).sample, unet(**inputs).sample, rtol=1e-4, atol=1e-4
    )


def test_new_blocks_learn(unet, inputs):
    larger = grow(unet, variant(unet, layers_per_block=2).eval())
    larger(**inputs).sample.square().mean().backward()
    for name in ("down_blocks.0.resnets.1.conv2.weight", "up_blocks.0.attentions.1.proj_out.weight"):
        assert larger.get_parameter(name).grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"block_out_channels": [16], "block_attention": "both", "separable": False},
            "the larger network has 1 levels; accepted is 2",
        ),
        (
            {"transformer_layers_per_block": 1},
            "down_blocks.1 has 1 transformers a ResNet block; accepted is 2 or more",
        ),
        ({"block_out_channels": [32, 128]}, r"has the shape .*accepted is that of"),
    ],
)
def test_a_network_that_is_not_larger_is_refused(unet, changes, named):
    unet = variant(unet, transformer_layers_per_block=2)
    with pytest.raises(ValueError, match=named):
        grow(unet, variant(unet, **changes))


def test_a_removed_block_cannot_be_added(unet):
    larger = variant(unet, layers_per_block=2, removed_blocks=["down_blocks.0.resnets.1"])
    with pytest.raises(TypeError, match="a Shortcut cannot be added; accepted are ResnetBlock and Transformer"):
        grow(unet, larger)
