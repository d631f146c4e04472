"""Weights rounded to float16 in training: by hand, against autograd's own rounding, resumed, averaged and exported."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.func import functional_call

from mobilediff.training.engine.rounding import RoundedWeights, round_to_float16
from mobilediff.training.engine.state import load_state
from tests.mobilediff.training.engine.regression import Regression


def test_weights_are_rounded_to_the_nearest_float16_ties_to_even():
    # from 1 to 2 float16 goes by 2^-10, and its smallest number is 2^-24
    values = [1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-20, -0.1, 2**-25, 3 * 2**-26, 65519.0, 65520.0]
    expected = [1, 1 + 2**-9, 1 + 2**-10, -1638 * 2**-14, 0, 2**-24, 65504, float("inf")]
    tensors = [torch.tensor(values), torch.tensor(values[:6]).reshape(2, 3)]
    round_to_float16(tensors)
    assert tensors[0].dtype == torch.float32
    assert tensors[0].tolist() == expected and tensors[1].flatten().tolist() == expected[:6]


def test_updates_below_half_a_step_of_float16_add_up():
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    rounded, seen = RoundedWeights(network), []
    for _ in range(4):  # below 1 float16 goes by 2^-11
        with rounded.unrounded(), torch.no_grad():
            network.weight -= 2**-13
        seen.append(network.weight.item())
    assert rounded.learned[0].item() == 1 - 2**-11
    assert seen == [1, 1, 1 - 2**-11, 1 - 2**-11]


class StraightThrough(torch.autograd.Function):
    """Round to float16; the gradient passes as it is."""

    @staticmethod
    def forward(ctx, weight):
        return weight.half().float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class RoundedByAutograd(Regression):
    """The same training by a second implementation: each call of the network rounds its weights within the graph."""

    def setup(self):
        super().setup()
        self.module = self.call

    def call(self, batch):
        weights = {name: StraightThrough.apply(one) for name, one in self.network.named_parameters()}
        return functional_call(self.network, weights, batch)


def test_training_equals_that_with_weights_rounded_by_autograd(tmp_path):
    Regression(tmp_path / "ours", dtype="fp16-weights", ema_decay=0.05).fit()
    expected = RoundedByAutograd(tmp_path / "expected", ema_decay=0.05)
    expected.fit()
    ours, _ = load_state(tmp_path / "ours")
    theirs, _ = load_state(tmp_path / "expected")
    for index, (name, learned) in enumerate(expected.network.named_parameters()):
        assert torch.equal(ours[f"network/learned.{index}"], learned), name
        assert torch.equal(ours[f"network/network.{name}"], learned.half().float()), name
        assert not torch.equal(learned, learned.half().float()), name
    assert {name: value for name, value in ours.items() if ".learned." not in name}.keys() >= theirs.keys()
    for name in (name for name in theirs if not name.startswith("network/network.")):
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("ema_decay", [0.05, 0.0])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, ema_decay):
    changes = {"dtype": "fp16-weights", "ema_decay": ema_decay}
    Regression(tmp_path / "whole", **changes).fit()
    Regression(tmp_path / "parts", stop_after=3, **changes).fit()
    Regression(tmp_path / "parts", **changes).fit()
    ours, _ = load_state(tmp_path / "parts")
    expected, _ = load_state(tmp_path / "whole")
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("ema_decay", [0.05, 0.0])
def test_exports_and_validation_have_the_average_rounded_and_training_goes_on_as_before(tmp_path, ema_decay):
    validated = []

    class Validated(Regression):
        def validate(self):
            with self.trainer.averaged_weights():
                validated.append(self.network[0].weight.detach().clone())
            return {}

    Validated(tmp_path, dtype="fp16-weights", ema_decay=ema_decay, sample_every=4).fit()
    state, _ = load_state(tmp_path)
    exported = load_file(tmp_path / "export" / "weights.safetensors")["weight"]
    assert torch.equal(exported, exported.half().float())
    average = state[f"network/ema {ema_decay}.0" if ema_decay else "network/learned.0"]
    assert not torch.equal(exported, average)
    assert torch.equal(exported, average.half().float())
    assert torch.equal(exported, validated[-1]) and not torch.equal(exported, validated[0])
    Regression(tmp_path / "plain", dtype="fp16-weights", ema_decay=ema_decay).fit()
    assert torch.equal(state["network/learned.0"], load_state(tmp_path / "plain")[0]["network/learned.0"])


def test_frozen_weights_stay_as_they_are():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[0].requires_grad_(False)
    before = network[0].weight.clone()
    RoundedWeights(network)
    assert torch.equal(network[0].weight, before) and not torch.equal(before, before.half().float())
    assert torch.equal(network[1].weight, network[1].weight.half().float())
