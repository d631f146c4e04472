"""Blocks left out of a MobileUNet, for a call and for good."""

import pytest
import torch

from mobilediff.compression.blocks import block_names, remove_blocks, without_blocks
from mobilediff.compression.pruning import prune_channels
from mobilediff.models.mobile_unet import MobileUNet
from tests.tiny import tiny_unet

BLOCKS = [
    "down_blocks.0.resnets.0",
    "down_blocks.1.resnets.0",
    "down_blocks.1.attentions.0",
    "up_blocks.0.resnets.0",
    "up_blocks.0.resnets.1",
    "up_blocks.0.attentions.0",
    "up_blocks.0.attentions.1",
    "up_blocks.1.resnets.0",
    "up_blocks.1.resnets.1",
    "mid_block.attentions.0",
]


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return tiny_unet("student-1step-pruned").eval()


def test_blocks_are_the_resnet_blocks_and_the_transformers(unet):
    assert sorted(block_names(unet)) == sorted(BLOCKS)


@torch.no_grad()
def test_a_block_left_out_for_a_call_is_back_after_it(unet, inputs):
    whole, state = unet(**inputs).sample, dict(unet.state_dict())
    with pytest.raises(KeyError), without_blocks(unet, BLOCKS[:3]):
        assert not torch.equal(unet(**inputs).sample, whole)
        raise KeyError
    assert torch.equal(unet(**inputs).sample, whole)
    assert list(unet.state_dict()) == list(state)


def test_only_what_is_executed_gets_a_gradient(unet, inputs):
    with without_blocks(unet, ["down_blocks.1.resnets.0"]):
        prediction = unet(**inputs).sample
    prediction.square().mean().backward()
    block = unet.get_submodule("down_blocks.1.resnets.0")
    assert block.conv_shortcut.weight.grad.abs().sum() > 0
    assert all(p.grad is None for name, p in block.named_parameters() if not name.startswith("conv_shortcut"))
    assert unet.get_submodule("mid_block.attentions.0").proj_out.weight.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("names", [[], BLOCKS[1:2], BLOCKS[-1:], BLOCKS])
def test_a_copy_without_blocks_computes_the_same_and_reloads(unet, inputs, tmp_path, names):
    smaller = remove_blocks(unet, names)
    assert sorted(block_names(smaller)) == sorted(set(BLOCKS) - set(names))
    with without_blocks(unet, names):
        expected = unet(**inputs).sample
    torch.testing.assert_close(smaller.eval()(**inputs).sample, expected)
    smaller.save_pretrained(tmp_path)
    torch.testing.assert_close(MobileUNet.from_pretrained(tmp_path).eval()(**inputs).sample, expected)


@torch.no_grad()
def test_removal_adds_up_and_goes_with_pruning(unet, inputs):
    once = remove_blocks(unet, BLOCKS[:4])
    twice = remove_blocks(remove_blocks(unet, BLOCKS[:2]), BLOCKS[2:4])
    assert sorted(twice.config.removed_blocks) == sorted(once.config.removed_blocks) == sorted(BLOCKS[:4])
    torch.testing.assert_close(twice.eval()(**inputs).sample, once.eval()(**inputs).sample)
    pruned = prune_channels(remove_blocks(unet, BLOCKS[:1]), 0.5)
    assert BLOCKS[0] not in pruned.config.resnet_hidden_channels
    assert remove_blocks(pruned, BLOCKS[1:2]).config.removed_blocks == BLOCKS[:2]


def test_a_block_that_is_not_there_is_named(unet):
    for method in (lambda: remove_blocks(unet, ["conv_in"]), lambda: without_blocks(unet, ["conv_in"]).__enter__()):
        with pytest.raises(ValueError, match="block is 'conv_in'; accepted are down_blocks.0.resnets.0, "):
            method()
    with pytest.raises(ValueError, match=r"block is 'down_blocks.0.resnets.0'; accepted are down_blocks.1"):
        remove_blocks(remove_blocks(unet, BLOCKS[:1]), BLOCKS[:1])
