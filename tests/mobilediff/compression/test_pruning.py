"""Structured and unstructured L1 pruning of a MobileUNet."""

import pytest
import torch

from mobilediff.compression.pruning import prune_channels, prune_weights
from mobilediff.models.mobile_unet import MobileUNet
from tests.tiny import HIDDEN_SIZE, LATENT_CHANNELS, LATENT_SIZE, PROJECTION_DIM, tiny_unet


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return tiny_unet("student").eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(2, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator),
        "timestep": torch.tensor([10, 900]),
        "encoder_hidden_states": torch.randn(2, 5, HIDDEN_SIZE, generator=generator),
        "class_labels": torch.randn(2, PROJECTION_DIM, generator=generator),
    }


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


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_bad_ratios_are_named(unet, ratio):
    for method in (prune_channels, prune_weights):
        with pytest.raises(ValueError, match=str(ratio)):
            method(unet, ratio)
