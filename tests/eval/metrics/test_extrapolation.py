"""The Frechet distance of infinitely many images, by closed forms and by a second line."""

import numpy as np
import pytest
import torch

from eval.metrics.extrapolation import frechet_distance_infinity, smallest_set
from eval.metrics.frechet import Statistics, feature_statistics, frechet_distance, weighted_distance

DIM = 16


def rows(seed, n, dim=DIM):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


NORMAL = Statistics(np.zeros(DIM), np.eye(DIM), 10**9, {})


def test_it_is_nearer_to_the_closed_form_than_the_distance_at_n():
    """N(mu, s^2 I) against N(0, I): |mu|^2 + F (s - 1)^2."""
    true = DIM * (0.1**2 + 0.2**2)
    values = []
    for seed in range(8):
        features = 1.2 * rows(seed, 200) + 0.1
        at_n = frechet_distance(feature_statistics(features), NORMAL)
        values.append((frechet_distance_infinity(features, NORMAL), at_n))
    infinite, finite = np.mean(values, axis=0)
    assert finite > true * 1.3, "200 rows are few enough for a bias"
    assert abs(infinite - true) < 0.2 * abs(finite - true)


def test_it_is_the_intercept_of_the_line_through_the_points():
    features = rows(0, 200) * 2
    sizes = np.linspace(smallest_set(200, DIM), 200, 4).round().astype(int)
    draws, distances = np.random.default_rng(5), []
    for size in sizes:
        drawn = features[torch.from_numpy(draws.choice(200, size, replace=False))]
        distances.append(frechet_distance(feature_statistics(drawn), NORMAL))
    design = np.stack([np.ones(4), 1 / sizes], axis=1)
    intercept = np.linalg.lstsq(design, np.array(distances), rcond=None)[0][0]
    assert frechet_distance_infinity(features, NORMAL, points=4, seed=5) == pytest.approx(intercept, rel=1e-6)


def test_the_distance_of_counts_is_that_of_the_rows_drawn():
    features, reference = rows(1, 120), feature_statistics(2 * rows(2, 90) + 1)
    distance = weighted_distance(features.numpy(), reference)
    for counts in (np.ones(120, dtype=np.int64), np.arange(120) % 3, (np.arange(120) < 60).astype(np.int64)):
        drawn = features[torch.from_numpy(np.repeat(np.arange(120), counts))]
        assert distance(counts) == pytest.approx(frechet_distance(feature_statistics(drawn), reference), rel=1e-8)


def test_sizes_reach_down_to_a_quarter_or_to_full_rank():
    assert (smallest_set(10000, 256), smallest_set(2000, 1280)) == (2500, 1281)


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [(DIM + 1, {}, "images are too few"), (100, {"points": 1}, "points is 1; accepted is 2")],
)
def test_too_few_images_or_points_are_refused(n, options, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance_infinity(rows(0, n), NORMAL, **options)
    with pytest.raises(ValueError, match="not of the same extractor"):
        frechet_distance_infinity(rows(0, 100, 3), NORMAL)
