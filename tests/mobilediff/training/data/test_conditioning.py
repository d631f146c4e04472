"""Networks called with caption ids."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mobilediff.training.data.conditioning import ConditionedNetwork
from tests.mobilediff.training.denoisers import NULL, SaysSample, velocity_to

NOISY, TIMESTEPS, CAPTION_IDS = torch.zeros(3, 2, 8, 8), torch.tensor([100, 500, 900]), torch.arange(3)


class Lookup:
    """Caption ids as they are."""

    def __call__(self, caption_ids):
        return {"caption_ids": caption_ids}

    def null_like(self, caption_ids):
        return torch.full_like(caption_ids, NULL)


class Network(nn.Module):
    def __init__(self, denoiser: SaysSample):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, noisy, timesteps, caption_ids):
        return SimpleNamespace(sample=self.denoiser(noisy, timesteps, caption_ids).to(torch.bfloat16))


@pytest.mark.parametrize(
    ("scale", "interval", "expected"),
    [
        (1.0, (0.0, 1.0), [1.0, 1.0, 1.0]),
        (3.0, (0.0, 1.0), [2.0, 2.0, 2.0]),  # 0.5 + 3 (1 - 0.5)
        (3.0, (0.4, 0.6), [1.0, 2.0, 1.0]),
    ],
)
def test_guidance_applies_inside_its_interval(scale, interval, expected):
    denoiser = SaysSample(1.0, null_value=0.5)
    network = ConditionedNetwork(Network(denoiser), Lookup())
    v = network.guided(NOISY, TIMESTEPS, CAPTION_IDS, scale, interval)
    assert v.dtype == torch.float32 and denoiser.batches == [3 if scale == 1 else 6]
    wanted = velocity_to(torch.tensor(expected)[:, None, None, None], NOISY, TIMESTEPS)
    torch.testing.assert_close(v, wanted.expand_as(v), rtol=0.02, atol=0.02)


def test_one_call_gives_the_captions_and_the_null_prompts_output():
    denoiser = SaysSample(1.0, null_value=0.5)
    network = ConditionedNetwork(Network(denoiser), Lookup())
    conditional, unconditional = network.with_null(NOISY, TIMESTEPS, CAPTION_IDS)
    assert torch.equal(conditional, network(NOISY, TIMESTEPS, CAPTION_IDS))
    assert torch.equal(unconditional, network(NOISY, TIMESTEPS, torch.full_like(CAPTION_IDS, NULL)))
    assert denoiser.batches == [6, 3, 3]
