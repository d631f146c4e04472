"""Pairs of a few-step student's noisy latents and samples."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mobilediff.captions import CaptionBank
from mobilediff.diffusion import alpha_sigma
from mobilediff.training.data.captioned import cached_tensors, captioned_batches
from mobilediff.training.data.pairs import (
    PairSettings,
    batch_sizes,
    ddim_trajectory_end,
    draw_intervals,
    remaining_timesteps,
    sample_pairs,
    start_of_trajectory,
)
from tests.mobilediff.training.denoisers import SaysSample


def test_pairs_end_where_the_students_remaining_steps_lead():
    """The student calls every clean sample 0.5, so that is where each timestep's sampling ends."""
    latents = torch.randn(1, 6, 2, 8, 8).expand(2, 6, 2, 8, 8)  # mirror images like the images
    for interval, remaining in enumerate((8, 6, 4, 2)):
        student, images = SaysSample(0.5), torch.arange(6)
        timesteps = remaining_timesteps(interval, student_steps=8, num_intervals=4)
        assert timesteps[0] == 999 - 250 * interval and timesteps[-1] == -1
        generator = torch.Generator().manual_seed(0)
        noisy = start_of_trajectory(latents, images, timesteps[0], generator, from_noise=interval == 0)
        ends = ddim_trajectory_end(student, noisy, timesteps, images)
        assert len(student.batches) == remaining
        torch.testing.assert_close(ends, torch.full_like(ends, 0.5), rtol=1e-3, atol=1e-3)
        alpha, sigma = alpha_sigma(timesteps[:1])
        noise = noisy if interval == 0 else (noisy - alpha * latents[0]) / sigma
        assert noise.std().item() == pytest.approx(1, abs=0.1)
        correlation = torch.corrcoef(torch.stack([noise.flatten(), latents[0].flatten()]))[0, 1]
        assert abs(correlation) < 0.15


def test_pairs_are_spread_over_the_timesteps():
    intervals = draw_intervals(10000, 4, 0.5)
    assert intervals.bincount().tolist() == [6250, 1250, 1250, 1250]
    sizes = batch_sizes(intervals, 250)
    assert sum(size for _, size in sizes) == 10000 and max(size for _, size in sizes) == 250
    assert [interval for interval, _ in sizes] == sorted(interval for interval, _ in sizes)
    assert batch_sizes(draw_intervals(6, 4, 0.5), 250) == [(0, 4), (1, 1), (3, 1)]


def test_pairs_are_drawn_once_for_all_that_they_depend_on(tmp_path):
    bank = CaptionBank()
    data = SimpleNamespace(
        device=torch.device("cpu"),
        latents=torch.zeros(2, 5, 2, 8, 8),
        labels=torch.arange(5),
        noun_ids=torch.full((5,), -1),
        conditioning=SimpleNamespace(bank=bank, hidden_states=torch.zeros(1), pooled=torch.zeros(1)),
    )
    settings = dict(student_steps=8, num_pairs=12, num_intervals=4, first_timestep_probability=0.5)
    settings |= dict(class_probability=1.0, phrasing_probability=0.0, batch_size=4, dtype="fp32")
    student = SaysSample(0.5)
    pairs = sample_pairs(student, data, PairSettings(**settings), tmp_path)
    assert pairs.interval.bincount().tolist() == [7, 1, 2, 2] and len(student.batches) == 2 * 8 + 6 + 4 + 2
    names = [bank.texts[caption_id] for caption_id in pairs.caption_ids[:5].tolist()]
    assert all(
        word in name for word, name in zip(("airplane", "automobile", "bird", "cat", "deer"), names, strict=True)
    )
    torch.testing.assert_close(pairs.latents, torch.full_like(pairs.latents, 0.5), rtol=1e-2, atol=1e-2)

    again = sample_pairs(silent := SaysSample(0.5), data, PairSettings(**settings), tmp_path)
    assert not silent.batches and torch.equal(again.noisy, pairs.noisy)
    for changed in ({"num_pairs": 16}, {"student_steps": 4}, {"dtype": "bf16"}):
        drawn = SaysSample(0.5)
        sample_pairs(drawn, data, PairSettings(**settings | changed), tmp_path)
        assert drawn.batches, changed
    data.latents = torch.ones_like(data.latents)
    sample_pairs(drawn := SaysSample(0.5), data, PairSettings(**settings), tmp_path)
    assert drawn.batches


def test_captions_follow_the_images_in_turn():
    bank, labels = CaptionBank(), torch.arange(10)
    batches = list(
        captioned_batches(bank, labels, torch.full_like(labels, -1), (4, 4, 4), torch.Generator().manual_seed(0), 0.0)
    )
    assert torch.cat([images for images, _ in batches]).tolist() == [*range(10), 0, 1]
    texts = [bank.texts[caption_id] for caption_id in batches[2][1].tolist()]
    assert all(word in text for word, text in zip(("ship", "truck", "airplane", "automobile"), texts, strict=True))


def test_tensors_are_made_where_the_file_is_not_there(tmp_path):
    file = tmp_path / "folder" / "a.safetensors"
    made = cached_tensors(file, lambda: {"a": torch.ones(2, 3).T})
    assert made["a"].shape == (3, 2) and torch.equal(load_file(file)["a"], made["a"])
    save_file({"a": torch.zeros(1)}, file)
    assert cached_tensors(file, lambda: pytest.fail("made again"))["a"].tolist() == [0.0]
