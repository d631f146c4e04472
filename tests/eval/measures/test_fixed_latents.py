"""The error of a changed network's latents against the unchanged one's."""

import pytest
import torch

from eval.measures.fixed_latents import FixedLatents, relative_error
from mobilediff.compression.blocks import without_blocks
from tests.tiny import tiny_pipeline


def test_the_relative_error_is_of_norms():
    expected = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert relative_error(expected, expected) == 0
    assert relative_error(expected + torch.tensor([[0.0, 3.0], [4.0, 0.0]]), expected) == pytest.approx(1)
    assert relative_error(torch.zeros(2, 2), expected) == pytest.approx(1)
    assert relative_error(1.1 * expected, expected) == pytest.approx(0.1)


def test_the_same_network_has_no_error_and_another_seed_gives_other_latents():
    pipeline = tiny_pipeline("student-1step")
    latents = FixedLatents(pipeline, 5, batch_size=2)
    assert latents.expected.shape == (5, 4, 16, 16)
    assert latents.error(pipeline) == 0
    torch.testing.assert_close(FixedLatents(pipeline, 5).expected, latents.expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(FixedLatents(pipeline, 5, seed=5, batch_size=2).expected, latents.expected)
    with without_blocks(pipeline.unet, ["mid_block.attentions.0"]):
        assert latents.error(pipeline) > 0
    assert latents.error(pipeline) == 0
