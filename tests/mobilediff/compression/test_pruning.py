"""Structured and unstructured L1 pruning of a MobileUNet."""

import pytest
import torch

from mobilediff.compression.blocks import block_names
from mobilediff.compression.pruning import (
    prunable_layers,
    prune_channels,
    prune_weights,
    pruned_layer,
    pruned_network,
    weight_mask,
)
from mobilediff.models.mobile_unet import MobileUNet
from tests.tiny import tiny_unet


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return tiny_unet("student").eval()


def test_ratio_0_is_a_copy(unet, inputs):
    pruned = prune_channels(unet, 0.0)
    assert torch.equal(pruned(**inputs).sample, unet(**inputs).sample)
    assert pruned is not unet


def test_pruned_network_keeps_the_strong_channels_and_reloads(unet, inputs, tmp_path):
    pruned = prune_channels(unet, 0.5)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in unet.parameters())
    name, width = next(iter(pruned.config.resnet_hidden_channels.items()))
    original, narrow = unet.get_submodule(name), pruned.get_submodule(name)
    conv, narrow_conv = (getattr(block.conv1, "pointwise", block.conv1) for block in (original, narrow))
    per_group = conv.out_channels // unet.config.norm_num_groups
    norms = conv.weight.flatten(1).abs().sum(1).view(-1, per_group)
    strongest = norms.topk(width // unet.config.norm_num_groups, dim=1).values.sum()
    assert width == conv.out_channels // 2
    torch.testing.assert_close(narrow_conv.weight.abs().sum(), strongest)

    pruned.save_pretrained(tmp_path)
    reloaded = MobileUNet.from_pretrained(tmp_path).eval()
    assert torch.equal(reloaded(**inputs).sample, pruned.eval()(**inputs).sample)


def test_the_original_is_left_as_it_is(unet, inputs):
    before = unet(**inputs).sample
    prune_channels(unet, 0.5)
    assert torch.equal(unet(**inputs).sample, before)


def test_unstructured_pruning_zeroes_the_smallest_weights(unet):
    weight = unet.conv_in.weight.detach().clone()
    masks = prune_weights(unet, 0.25)
    kept = masks["conv_in.weight"].bool()
    assert (~kept).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert weight[~kept].abs().max() <= weight[kept].abs().min()
    assert torch.equal(unet.conv_in.weight[kept], weight[kept])
    assert not unet.conv_in.weight[~kept].any()


def test_the_mask_of_a_ratio_is_0_at_the_smallest_weights():
    layer = torch.nn.Conv2d(2, 2, (1, 3), bias=False)
    layer.weight.data = torch.tensor([0.1, -5, 2, -0.2, 3, 4, 0.3, -1, 6, -0.4, 7, -8]).view(2, 2, 1, 3)
    masks = {0.0: 12 * [1], 0.25: [0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1], 0.5: [0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1]}
    for ratio, mask in masks.items():
        assert weight_mask(layer, ratio).flatten().tolist() == mask
        channels_last = torch.nn.Conv2d(2, 2, (1, 3), bias=False).to(memory_format=torch.channels_last)
        channels_last.weight.data.copy_(layer.weight.data)
        assert weight_mask(channels_last, ratio).flatten().tolist() == mask


def test_a_single_layer_is_pruned_within_the_block(unet):
    before = {name: layer.weight.clone() for name, layer in prunable_layers(unet).items()}
    mask = weight_mask(unet.conv_out, 0.5)
    with pruned_layer(unet, "conv_out", 0.5):
        assert torch.equal(unet.conv_out.weight, before["conv_out"] * mask)
        others = {name: layer for name, layer in prunable_layers(unet).items() if name != "conv_out"}
        assert all(torch.equal(layer.weight, before[name]) for name, layer in others.items())
    assert torch.equal(unet.conv_out.weight, before["conv_out"])


def test_a_pruned_network_is_a_copy_by_each_method(unet):
    before, names = {name: tensor.clone() for name, tensor in unet.state_dict().items()}, block_names(unet)
    unstructured = pruned_network(unet, "unstructured", 0.5)
    weights = [layer.weight for layer in prunable_layers(unstructured).values()]
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    assert zeros == pytest.approx(0.5, abs=0.01)
    structured = pruned_network(unet, "structured", 0.5)
    assert dict(structured.config.resnet_hidden_channels) == dict(
        prune_channels(unet, 0.5).config.resnet_hidden_channels
    )
    ordered = names[::-1]
    assert len(names) == 10
    assert pruned_network(unet, "blocks", 0.3, ordered).config.removed_blocks == names[-3:]
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_bad_ratios_are_named(unet, ratio):
    for method in (prune_channels, prune_weights):
        with pytest.raises(ValueError, match=str(ratio)):
            method(unet, ratio)
    with pytest.raises(ValueError, match=str(ratio)), pruned_layer(unet, "conv_in", ratio):
        pass
    with pytest.raises(ValueError, match=str(ratio)):
        pruned_network(unet, "blocks", ratio, block_names(unet))
