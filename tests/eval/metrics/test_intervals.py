"""Intervals of fractions stay within 0 and 1, and are no point where all hits are equal."""

import pytest
import torch

from eval.metrics.accuracy import accuracy_intervals
from eval.metrics.bootstrap import fraction_interval, manifold_intervals, mean_interval


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_hits_that_are_all_equal_have_wilsons_interval(hit):
    interval = fraction_interval(torch.full((20,), hit, dtype=torch.float64))
    inner = interval["high"] if hit == 0 else 1 - interval["low"]
    assert inner == pytest.approx(0.1611, abs=1e-4)  # of 0 of 20, by the published tables
    assert (interval["low"], interval["high"])[int(hit)] == hit


@pytest.mark.parametrize("misses", [1, 19])
def test_a_fraction_near_an_end_has_an_interval_within_0_and_1(misses):
    hits = torch.ones(20, dtype=torch.float64)
    hits[:misses] = 0
    interval, plain = fraction_interval(hits), mean_interval(hits)
    assert plain["high"] > 1 or plain["low"] < 0
    assert 0 <= interval["low"] < hits.mean() < interval["high"] <= 1


def test_an_interval_far_from_the_ends_is_that_of_the_mean():
    hits = (torch.arange(400) % 3 == 0).double()
    assert fraction_interval(hits) == mean_interval(hits)


def test_accuracies_and_manifold_figures_have_intervals_of_their_range():
    logits = torch.eye(10)[torch.arange(40) % 10]
    features = {"class_logits": logits, "noun_logits": logits}
    intervals = accuracy_intervals(features, torch.arange(40) % 10, torch.arange(40) % 10)
    assert set(intervals) == {"class_accuracy", "noun_top1", "noun_top5"}
    generator = torch.Generator().manual_seed(0)
    real, generated = (torch.randn(30, 4, generator=generator) for _ in range(2))
    generated[1:] += 100  # one row near the real ones: precision and coverage near 0
    of_manifold = manifold_intervals(real, generated, 3)
    assert of_manifold["density"]["low"] >= 0
    for name in ("precision", "coverage"):
        intervals[name] = of_manifold[name]
    assert all(0 <= interval["low"] <= interval["high"] <= 1 for interval in intervals.values())
