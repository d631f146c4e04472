import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D

from mobilediff.models import mobile_unet
from mobilediff.models.macs import count_params_and_macs
from mobilediff.models.mobile_unet import (
    Attention,
    GatedFeedForward,
    MobileUNet,
    ResnetBlock,
    Transformer,
    relu_attention,
)
from mobilediff.training.student import match_stages

CONFIGS = Path(mobile_unet.__file__).parent / "configs"
# What diffusers publishes as stable-diffusion-v1-5's unet/config.json; the rest are the class's defaults.
SD15 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
TINY = {
    "sample_size": 8,
    "block_out_channels": (16, 32, 48),
    "layers_per_block": (1, 1, 2),
    "mid_block_layers": 2,
    "separable": (False, True, True),
    "attention_head_dim": 16,
    "cross_attention_dim": 24,
    "norm_num_groups": 8,
    "projection_class_embeddings_input_dim": 20,
}


def tiny(**changes) -> MobileUNet:
    torch.manual_seed(0)
    return MobileUNet(**{**TINY, **changes}).eval()


def inputs(config, batch: int = 1, tokens: int = 12, device: str = "cpu") -> dict:
    generator = None if device == "meta" else torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, device=device)

    size, pooled_dim = config["sample_size"], config["projection_class_embeddings_input_dim"]
    drawn = {
        "sample": draw(batch, config["in_channels"], size, size),
        "timestep": torch.linspace(10, 900, batch, device=device),
        "encoder_hidden_states": draw(batch, tokens, config["cross_attention_dim"]),
    }
    if pooled_dim is not None:
        drawn["class_labels"] = draw(batch, pooled_dim)
    return drawn


def on_meta(network_class, config, tokens: int) -> tuple[int, int]:
    with torch.device("meta"):
        network = network_class.from_config(config)
    return count_params_and_macs(network, inputs(network.config, tokens=tokens, device="meta"))


def read(name: str) -> dict:
    return json.loads((CONFIGS / f"{name}.json").read_text())


@torch.no_grad()
def predict(network: MobileUNet, **kwargs) -> torch.Tensor:
    return network(**{**inputs(network.config), **kwargs}).sample


# The sizes the configs are made for


@pytest.mark.slow
def test_md_config_lands_on_the_papers_size():
    params, macs = on_meta(MobileUNet, read("mobilediffusion_md"), tokens=77)
    _, macs_sd15 = on_meta(UNet2DConditionModel, SD15, tokens=77)
    assert params == pytest.approx(386e6, rel=0.05)
    assert macs / macs_sd15 == pytest.approx(182 / 392, rel=0.10)


def test_md_config_has_the_papers_layers():
    with torch.device("meta"):
        modules = dict(MobileUNet.from_config(read("mobilediffusion_md")).named_modules())
    assert sum(isinstance(module, ResnetBlock) for module in modules.values()) == 11
    assert sum(name.endswith("attn1") and module is not None for name, module in modules.items()) == 15
    assert sum(name.endswith("attn2") for name in modules) == 18


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [12, 16])
def test_student_config_is_within_its_share_of_the_teacher(tokens):
    params, macs = on_meta(MobileUNet, read("student"), tokens)
    params_teacher, macs_teacher = on_meta(UNet2DConditionModel, read("teacher"), tokens)
    assert 0.16 * params_teacher < params <= 0.17 * params_teacher
    assert 0.27 * macs_teacher < macs <= 0.28 * macs_teacher


def test_student_and_teacher_features_line_up():
    shapes = {}
    for network_class, name in ((MobileUNet, "student"), (UNet2DConditionModel, "teacher")):
        network = network_class.from_config(read(name))
        seen = shapes[name] = []
        for block in (*network.down_blocks, network.mid_block, *network.up_blocks):
            block.register_forward_hook(
                lambda _, __, output, seen=seen: seen.append(
                    (output[0] if isinstance(output, tuple) else output).shape[-2:]
                )
            )
        predict(network)
    assert shapes["teacher"] == [(8, 8), (4, 4), (4, 4), (4, 4), (8, 8), (16, 16), (16, 16)]
    assert shapes["student"] == [(8, 8), (8, 8), (8, 8), (16, 16), (16, 16)]
    full = [[torch.Size([1, 8, *size]) for size in shapes[name]] for name in ("student", "teacher")]
    assert match_stages(*full) == [(0, 0), (3, 5), (4, 6)]


# Counting


@pytest.mark.parametrize("kernel", ["softmax", "relu"])
def test_macs_by_hand_on_every_device(kernel):
    queries, keys, dim, inner = 5, 7, 8, 6
    for device in ("cpu", "meta"):
        attention = Attention(dim, dim, heads=2, head_dim=3, share_key_value=True, kernel=kernel).to(device)
        call = {
            "hidden_states": torch.zeros(1, queries, dim, device=device),
            "context": torch.zeros(1, keys, dim, device=device),
        }
        params, macs = count_params_and_macs(attention, call)
        assert params == 3 * dim * inner + dim
        assert macs == 2 * queries * dim * inner + keys * dim * inner + 2 * queries * keys * inner


def test_macs_of_a_convolution_and_of_a_wrong_device():
    convolution = torch.nn.Conv2d(4, 6, 3, padding=1)
    assert count_params_and_macs(convolution, {"input": torch.zeros(2, 4, 5, 5)}) == (222, 2 * 25 * 4 * 6 * 9)
    with pytest.raises(ValueError, match="'input' is on meta but the model is on cpu"):
        count_params_and_macs(convolution, {"input": torch.zeros(2, 4, 5, 5, device="meta")})


@pytest.mark.slow
def test_macs_do_not_depend_on_the_attention_kernel_or_the_device():
    counts = {
        (kernel, device): count_params_and_macs(
            tiny(attention_kernel=kernel).to(device), inputs(tiny().config, device=device)
        )
        for kernel in ("softmax", "relu")
        for device in ("cpu", "meta")
    }
    assert len(set(counts.values())) == 1


# Config and weights


def test_config_round_trip():
    network = tiny(ff_hidden_dims={"mid_block.attentions.0.ff": 40})
    stored = json.loads(network.to_json_string())
    again = MobileUNet.from_config(stored)
    assert json.loads(again.to_json_string()) == stored
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


@pytest.mark.slow
def test_pruned_network_reloads_from_its_config_with_the_same_output(tmp_path):
    pruned = tiny(
        resnet_hidden_channels={"down_blocks.2.resnets.1": 32, "up_blocks.2.resnets.0": 8},
        attention_heads={"mid_block.attentions.0.attn1": 1, "up_blocks.1.attentions.0.attn2": 1},
        ff_hidden_dims={"mid_block.attentions.0.ff": 40, "down_blocks.2.attentions.0.ff": 7},
    )
    assert pruned.num_parameters() < tiny().num_parameters()
    assert pruned.down_blocks[2].resnets[1].conv1.pointwise.out_channels == 32
    assert pruned.mid_block.attentions[0].attn1.to_q.out_features == 16
    assert pruned.mid_block.attentions[0].ff.out.in_features == 40
    pruned.save_pretrained(tmp_path)
    again = MobileUNet.from_pretrained(tmp_path).eval()
    for name, value in pruned.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    # not to the last bit: the alignment of a memory-mapped weight decides which kernel multiplies it
    torch.testing.assert_close(predict(again), predict(pruned), rtol=1e-4, atol=1e-5)


# What each field changes


def test_share_key_value_removes_one_projection_of_every_self_attention():
    shared, separate = tiny(), tiny(share_key_value=False)
    self_attentions = [name for name, _ in shared.named_modules() if name.endswith("attn1")]
    assert len(self_attentions) == 6
    assert separate.num_parameters() - shared.num_parameters() == len(self_attentions) * 48 * 48


@pytest.mark.slow
def test_separable_replaces_the_convolutions_of_its_level_alone():
    full, separable = tiny(separable=False), tiny(separable=(False, True, False))
    levels = {"down_blocks.1", "up_blocks.1"}
    changed = {name for name, value in full.state_dict().items() if name not in separable.state_dict()}
    assert {name.split(".resnets")[0] for name in changed} == levels
    # 3 ResNet blocks at 32 channels, fed with 16, 48 + 32 and 32 + 16 channels; a full convolution has 9 per pair
    convolutions = [(16, 32), (80, 32), (48, 32), (32, 32), (32, 32), (32, 32)]
    saved = sum(9 * i * o - (9 * i + i * o) for i, o in convolutions)
    assert full.num_parameters() - separable.num_parameters() == saved


def test_ff_expansion_counts_the_gate():
    ff = tiny(ff_expansion=6).mid_block.attentions[0].ff
    assert (ff.proj.in_features, ff.proj.out_features, ff.out.in_features) == (48, 6 * 48, 3 * 48)
    # 9 transformers: 3 cross-only of 32 channels; 8 -> 6 takes 2 C of the first layer (and its bias), C of the second
    saved = tiny(ff_expansion=8).num_parameters() - tiny(ff_expansion=6).num_parameters()
    assert saved == sum(count * (3 * c * c + 2 * c) for count, c in ((3, 32), (6, 48)))


@pytest.mark.parametrize(("activation", "function"), [("swish", F.silu), ("geglu", F.gelu)])
def test_gate_of_the_feed_forward(activation, function):
    torch.manual_seed(0)
    ff, tokens = GatedFeedForward(4, 3, activation), torch.randn(2, 5, 4)
    projected = tokens @ ff.proj.weight.T + ff.proj.bias
    gated = projected[..., :3] * function(projected[..., 3:])
    torch.testing.assert_close(ff(tokens), gated @ ff.out.weight.T + ff.out.bias)


def test_relu_attention_against_brute_force():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    expected = torch.zeros(2, 3, 5, 4)
    for b in range(2):
        for h in range(3):
            for i in range(5):
                for j in range(7):
                    logit = float(query[b, h, i] @ key[b, h, j]) / 4**0.5
                    expected[b, h, i] += max(logit, 0.0) / 7 * value[b, h, j]
    torch.testing.assert_close(relu_attention(query, key, value), expected)


def test_shared_attention_against_brute_force():
    torch.manual_seed(0)
    attention, tokens = Attention(6, 6, 2, 3, share_key_value=True, kernel="softmax"), torch.randn(1, 5, 6)
    query, keys = tokens @ attention.to_q.weight.T, tokens @ attention.to_kv.weight.T
    heads = [
        torch.softmax(query[0, :, s] @ keys[0, :, s].T / 3**0.5, dim=-1) @ keys[0, :, s]
        for s in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(attention(tokens, tokens)[0], attention.to_out(torch.cat(heads, dim=-1)))


def test_attention_kernel_changes_the_output_but_no_weight():
    softmax, relu = tiny(), tiny(attention_kernel="relu")
    relu.load_state_dict(softmax.state_dict())
    assert not torch.allclose(predict(softmax), predict(relu), atol=1e-4)


def test_attention_sits_where_the_config_says():
    network = tiny(block_attention=("none", "cross", "both"), mid_block_attention="none", mid_block_layers=1)
    assert [len(block.attentions) for block in network.down_blocks] == [0, 1, 2]
    assert [len(block.attentions) for block in network.up_blocks] == [3, 2, 0]
    assert len(network.mid_block.attentions) == 0
    assert all(transformer.attn1 is None for transformer in network.down_blocks[1].attentions)
    assert all(transformer.attn1 is not None for transformer in network.down_blocks[2].attentions)
    deeper = tiny(transformer_layers_per_block=(1, 2, 1), mid_block_transformer_layers=3)
    assert len(deeper.down_blocks[1].attentions) == 2
    assert len(deeper.mid_block.attentions) == 3


BLOCKS = {
    "identity": "mid_block.resnets.1",
    "1 x 1 convolution": "down_blocks.1.resnets.0",
    "1 x 1 convolution over a skip connection": "up_blocks.0.resnets.1",
    "transformer": "down_blocks.2.attentions.1",
}


@pytest.mark.parametrize("name", BLOCKS.values(), ids=BLOCKS)
def test_a_removed_block_equals_one_whose_residual_branch_is_zero(name):
    whole, removed = tiny(), tiny(removed_blocks=[name])
    kept = {key: value for key, value in whole.state_dict().items() if key in removed.state_dict()}
    removed.load_state_dict(kept)
    block = whole.get_submodule(name)
    last = block.conv2 if isinstance(block, ResnetBlock) else block.proj_out
    for parameter in getattr(last, "pointwise", last).parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(predict(removed), predict(whole))
    dropped = {key for key in whole.state_dict() if key not in kept}
    assert dropped == {f"{name}.{key}" for key in block.state_dict() if "conv_shortcut" not in key}


def test_a_network_of_resamplers_and_shortcuts_is_left_without_its_blocks(tmp_path):
    names = [name for name, module in tiny().named_modules() if isinstance(module, ResnetBlock | Transformer)]
    network = tiny(removed_blocks=names)
    assert not any(isinstance(module, ResnetBlock | Transformer) for module in network.modules())
    network.save_pretrained(tmp_path)
    again = MobileUNet.from_pretrained(tmp_path).eval()
    assert again.config.removed_blocks == names
    torch.testing.assert_close(predict(again), predict(network))


def test_upsampling_equals_diffusers():
    torch.manual_seed(0)
    ours, theirs = mobile_unet.Upsample(4), Upsample2D(4, use_conv=True)
    theirs.load_state_dict(ours.state_dict())
    hidden_states = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(ours(hidden_states), theirs(hidden_states))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_out_channels": (16, 30, 48)}, "30 is no multiple of norm_num_groups 8"),
        ({"block_out_channels": ()}, "block_out_channels must be a list"),
        ({"layers_per_block": (1, 2)}, "layers_per_block has 2 entries"),
        ({"layers_per_block": 0}, "layers_per_block must be an integer of at least 1, got 0"),
        ({"mid_block_layers": -1}, "mid_block_layers must be an integer of at least 0, got -1"),
        ({"mid_block_layers": 0, "mid_block_attention": "none"}, "the middle would be empty"),
        ({"block_attention": ("none", "self", "both")}, "block_attention must be one of 'none', 'cross', 'both'"),
        ({"mid_block_attention": "self"}, "mid_block_attention must be one of"),
        ({"attention_kernel": "linear"}, "attention_kernel must be one of 'softmax', 'relu', got 'linear'"),
        ({"ff_activation": "relu"}, "ff_activation must be one of 'swish', 'geglu', got 'relu'"),
        ({"ff_expansion": 0.01}, "ff_expansion 0.01 gives"),
        ({"ff_expansion": "6"}, "ff_expansion must be a number"),
        ({"attention_head_dim": 20}, "attention_head_dim 20 does not divide the 32 channels of level 1"),
        ({"separable": (False, 1.5, True)}, "separable must be one of True, False, got 1.5"),
        ({"sample_size": 6}, "sample_size 6 is no multiple of 4"),
        ({"resnet_hidden_channels": {"down_blocks.0.resnets.7": 8}}, "names 'down_blocks.0.resnets.7', but"),
        ({"resnet_hidden_channels": {"down_blocks.0.resnets.0": 9}}, "= 9 is no multiple of norm_num_groups 8"),
        ({"attention_heads": {"mid_block.attentions.0.attn1": 0}}, "must be an integer of at least 1, got 0"),
        ({"attention_heads": {"down_blocks.1.attentions.0.attn1": 1}}, "attention_heads names"),
        ({"ff_hidden_dims": {"mid_block.attentions.0": 8}}, "ff_hidden_dims names 'mid_block.attentions.0'"),
        ({"ff_hidden_dims": ["mid_block"]}, "ff_hidden_dims must map module names to widths"),
        ({"removed_blocks": "mid_block.resnets.0"}, "removed_blocks must be a list of module names, got 'mid_block"),
        ({"removed_blocks": [["mid_block"]]}, "removed_blocks must be a list of module names"),
        ({"removed_blocks": ["mid_block.resnets.2"]}, "removed_blocks names 'mid_block.resnets.2', but this network"),
        ({"removed_blocks": ["down_blocks.0.downsamplers.0"]}, "removed_blocks names 'down_blocks.0.downsamplers.0'"),
    ],
)
def test_bad_config_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        tiny(**change)


# The call


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": torch.zeros(1, 3, 8, 8)}, "sample must be"),
        ({"sample": torch.zeros(1, 4, 6, 8)}, "multiples of 4"),
        ({"encoder_hidden_states": torch.zeros(1, 12, 23)}, "encoder_hidden_states must be"),
        ({"class_labels": None}, "class_labels must be the pooled text"),
        ({"class_labels": torch.zeros(1)}, "class_labels must be the pooled text"),
        ({"timestep": torch.zeros(2)}, "timestep must be"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        predict(tiny(), **change)


def test_class_labels_are_refused_where_they_would_be_ignored():
    network = tiny(projection_class_embeddings_input_dim=None)
    assert predict(network).shape == (1, 4, 8, 8)
    with pytest.raises(ValueError, match="without projection_class_embeddings_input_dim"):
        predict(network, class_labels=torch.zeros(1, 20))


def test_an_image_does_not_depend_on_its_batch():
    network = tiny()
    batch = inputs(network.config, batch=3)
    with torch.no_grad():
        together = network(**batch).sample
        for index in range(3):
            alone = network(**{name: value[index : index + 1] for name, value in batch.items()}).sample
            torch.testing.assert_close(alone, together[index : index + 1], rtol=1e-4, atol=1e-5)


def test_every_input_matters_and_a_number_serves_as_timestep():
    network = tiny()
    base = predict(network)
    assert base.shape == (1, 4, 8, 8)
    for name in ("sample", "encoder_hidden_states", "class_labels"):
        changed = predict(network, **{name: 1 + inputs(network.config)[name]})
        assert not torch.allclose(changed, base, atol=1e-4), name
    assert not torch.allclose(predict(network, timestep=500), base, atol=1e-4)
    torch.testing.assert_close(predict(network, timestep=10), base)
    torch.testing.assert_close(network(**inputs(network.config), return_dict=False)[0], base)


def test_memory_format_does_not_change_the_output():
    network = tiny()
    base = predict(network)
    network.to(memory_format=torch.channels_last)
    sample = inputs(network.config)["sample"].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(predict(network, sample=sample), base, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", ["softmax", "relu"])
def test_gradients_reach_every_parameter_also_under_checkpointing(kernel):
    network = tiny(attention_kernel=kernel).train()
    checkpointed = copy.deepcopy(network)
    checkpointed.enable_gradient_checkpointing()
    for model in (network, checkpointed):
        model(**inputs(model.config, batch=2)).sample.square().mean().backward()
    for (name, parameter), other in zip(network.named_parameters(), checkpointed.parameters(), strict=True):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        torch.testing.assert_close(other.grad, parameter.grad)


def test_bf16_autocast_runs_and_stays_close():
    network = tiny()
    base = predict(network)
    with torch.autocast("cpu", torch.bfloat16):
        low = predict(network)
    assert (low.float() - base).abs().max() < 0.1 * base.abs().max()
