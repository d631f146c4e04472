"""Residuals of MobileControlNet, and the UNet that takes them."""

import pytest
import torch

from mobilediff.checkpoints import load_component
from mobilediff.models.macs import count_params_and_macs
from mobilediff.models.mobile_controlnet import MobileControlNet
from mobilediff.models.mobile_unet import MobileUNet
from tests.mobilediff.models.test_mobile_unet import inputs, tiny


def condition(batch: int = 2, size: int = 16) -> torch.Tensor:
    return torch.rand(batch, 6, size, size, generator=torch.Generator().manual_seed(2))


def residuals(network: MobileControlNet, arguments: dict, **changes):
    named = {"controlnet_cond": condition(), "class_labels": arguments["class_labels"], **changes}
    return network(arguments["sample"], arguments["timestep"], **named)


def trained(unet: MobileUNet) -> MobileControlNet:
    """A control network whose last layers are no longer zero."""
    network = MobileControlNet.from_unet(unet)
    for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight)
    return network.eval()


@torch.no_grad()
def test_an_untrained_one_changes_nothing_and_a_trained_one_does():
    unet, arguments = tiny(), inputs(tiny().config, batch=2)
    expected = unet(**arguments).sample
    for network, same in ((MobileControlNet.from_unet(unet), True), (trained(unet), False)):
        output = residuals(network, arguments)
        drawn = unet(
            **arguments,
            down_block_additional_residuals=output.down_block_res_samples,
            mid_block_additional_residual=output.mid_block_res_sample,
        ).sample
        assert torch.equal(drawn, expected) is same


@torch.no_grad()
def test_the_unet_adds_residuals_to_what_its_decoder_takes():
    unet, arguments = tiny(), inputs(tiny().config, batch=2)
    seen = {}
    for name, block in (("outer", unet.up_blocks[-1]), ("inner", unet.up_blocks[0])):
        block.register_forward_hook(lambda _, args, __, name=name: seen.setdefault(name, []).append(args))
    output = residuals(trained(unet), arguments)
    unet(**arguments)
    unet(
        **arguments,
        down_block_additional_residuals=output.down_block_res_samples,
        mid_block_additional_residual=output.mid_block_res_sample,
    )
    before, after = (seen["inner"][index][0] for index in (0, 1))
    torch.testing.assert_close(after, before + output.mid_block_res_sample)
    before, after = (seen["outer"][index][1] for index in (0, 1))
    for index in (0, 1):
        torch.testing.assert_close(after[index], before[index] + output.down_block_res_samples[index])


@torch.no_grad()
def test_the_scale_multiplies_every_residual():
    unet, arguments = tiny(), inputs(tiny().config, batch=2)
    network = trained(unet)
    whole, half = (residuals(network, arguments, conditioning_scale=scale) for scale in (1.0, 0.5))
    torch.testing.assert_close(half.mid_block_res_sample, whole.mid_block_res_sample / 2)
    for a, b in zip(half.down_block_res_samples, whole.down_block_res_samples, strict=True):
        torch.testing.assert_close(a, b / 2)


def test_what_is_missing_is_zero_and_flagged():
    edges, colors = torch.ones(2, 1, 8, 8), torch.arange(24.0).view(2, 3, 2, 2) / 24
    joined = MobileControlNet.join_conditions(edges, colors, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert joined.shape == (2, 6, 8, 8)
    assert torch.equal(joined[0, 0], edges[0, 0]) and not joined[0, 1:4].any()
    assert not joined[1, 0].any() and torch.equal(joined[1, 1:4, ::4, ::4], colors[1])
    assert joined[:, 4:, 0, 0].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("argument", "value", "named"),
    [
        ("down_block_additional_residuals", [torch.zeros(2, 16, 8, 8)], r"got \[\[2, 16, 8, 8\]\]"),
        ("mid_block_additional_residual", torch.zeros(2, 48, 4, 4), r"\[\[2, 48, 2, 2\]\], got \[\[2, 48, 4, 4\]\]"),
    ],
)
def test_the_unet_names_residuals_of_other_shapes(argument, value, named):
    with pytest.raises(ValueError, match=f"{argument} must have the shapes .*{named}"):
        tiny()(**inputs(tiny().config, batch=2), **{argument: value})


def test_a_condition_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"controlnet_cond must be \[2, 6, 16, 16\], got \[2, 6, 8, 8\]"):
        residuals(
            MobileControlNet.from_unet(tiny()), inputs(tiny().config, batch=2), controlnet_cond=condition(size=8)
        )


def test_a_saved_one_is_loaded(tmp_path):
    network, arguments = trained(tiny()), inputs(tiny().config, batch=2)
    network.save_pretrained(tmp_path)
    loaded = load_component(MobileControlNet, tmp_path)
    with torch.no_grad():
        first, second = (residuals(one, arguments).mid_block_res_sample for one in (network, loaded))
    assert torch.equal(first, second)


def test_it_costs_at_most_a_quarter_of_the_students_network():
    with torch.device("meta"):
        unet = MobileUNet.from_config(MobileUNet.load_config("checkpoints/student-1step/unet"))
        network = MobileControlNet.from_unet(unet)
    config = unet.config
    arguments = inputs(config, tokens=16, device="meta")
    macs = count_params_and_macs(unet, arguments)[1]
    of_control = {name: arguments[name] for name in ("sample", "timestep", "class_labels")}
    of_control["controlnet_cond"] = torch.zeros(1, 6, network.condition_size, network.condition_size, device="meta")
    assert count_params_and_macs(network, of_control)[1] <= macs / 4
