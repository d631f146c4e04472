"""Metrics on feature tensors against definitions, closed forms and torch-fidelity; bad values refused by name."""

import json

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from eval.metrics.accuracy import top_k_accuracy
from eval.metrics.bootstrap import (
    bootstrap_interval,
    frechet_interval,
    interval_at_n,
    kernel_interval,
    manifold_intervals,
)
from eval.metrics.frechet import Statistics, feature_statistics, frechet_distance
from eval.metrics.kernel import inception_score, kernel_distance
from eval.metrics.manifold import manifold_metrics
from eval.metrics.nearest import compare_nearest, nearest_training, pairwise_distance

SHARES = ("precision", "recall", "coverage")


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_a_nan(features: torch.Tensor) -> torch.Tensor:
    features = features.clone()
    features[1, 0] = float("nan")
    return features


def brute_force(real: np.ndarray, generated: np.ndarray, k: int) -> dict:
    """The four figures row by row, as the papers define them."""

    def radius(rows, index):
        return sorted(np.linalg.norm(rows[index] - row) for other, row in enumerate(rows) if other != index)[k - 1]

    real_radii = [radius(real, index) for index in range(len(real))]
    generated_radii = [radius(generated, index) for index in range(len(generated))]
    in_real = [[np.linalg.norm(y - x) <= r for x, r in zip(real, real_radii, strict=True)] for y in generated]
    in_generated = [
        [np.linalg.norm(x - y) <= r for y, r in zip(generated, generated_radii, strict=True)] for x in real
    ]
    return {
        "precision": np.mean([any(row) for row in in_real]),
        "recall": np.mean([any(row) for row in in_generated]),
        "density": sum(map(sum, in_real)) / (k * len(generated)),
        "coverage": np.mean([any(row) for row in zip(*in_real, strict=True)]),
        "neighbours": k,
    }


@pytest.mark.parametrize("k", [1, 3, 6])
def test_manifold_metrics_are_those_of_the_definitions(k):
    real, generated = gaussian(45, 4), 0.6 * gaussian(30, 4, seed=1) + 0.4
    expected = brute_force(real.numpy(), generated.numpy(), k)
    assert manifold_metrics(real, generated, k) == pytest.approx(expected, rel=1e-6)
    assert expected["precision"] > expected["recall"] + 0.1  # so that swapped sets would be seen


def test_manifold_metrics_do_not_depend_on_batches_or_order():
    real, generated = gaussian(60, 4), 0.7 * gaussian(50, 4, seed=1)
    expected = manifold_metrics(real, generated)
    assert all(0 < expected[name] < 1 for name in SHARES)
    for batch_size in (1, 29, 60):
        assert manifold_metrics(real, generated, batch_size=batch_size) == expected
    assert manifold_metrics(real.flip(0), generated.roll(7, 0)) == expected


def test_identical_sets_are_inside_and_far_sets_outside_each_other():
    real = 10 * gaussian(80, 5)
    for batch_size in (7, 80):
        result = manifold_metrics(real, real, batch_size=batch_size)
        assert [result[name] for name in SHARES] == [1, 1, 1]
        assert result["density"] == (3 + 1) / 3  # each ball holds its centre and k rows, the last on its rim
    result = manifold_metrics(real, real[:40] + 1e4)
    assert [result[name] for name in (*SHARES, "density")] == [0, 0, 0, 0]
    constant = manifold_metrics(torch.full((30, 5), 0.1), torch.full((30, 5), 0.1))
    assert constant["coverage"] == 1 and constant["density"] == 30 / 3


def test_density_and_coverage_of_one_distribution_are_at_the_stated_level():
    result = manifold_metrics(gaussian(800, 3), gaussian(800, 3, seed=1))
    assert result["coverage"] == pytest.approx(1 - 2**-3, abs=0.03)
    assert result["density"] == pytest.approx(1, abs=0.06)


def test_kernel_distance_is_the_unbiased_estimate_written_out():
    real, generated = gaussian(9, 3).numpy(), gaussian(9, 3, seed=1).numpy() + 0.5

    def mean_kernel(first, second, same):
        pairs = [(i, j) for i in range(9) for j in range(9) if not (same and i == j)]
        return np.mean([(0.5 * first[i] @ second[j] + 2) ** 2 for i, j in pairs])

    expected = mean_kernel(real, real, True) + mean_kernel(generated, generated, True)
    expected -= 2 * mean_kernel(real, generated, False)
    sets = torch.from_numpy(real), torch.from_numpy(generated)
    result = kernel_distance(*sets, subsets=2, subset_size=9, degree=2, gamma=0.5, coef=2)
    assert result["kernel_distance_mean"] == pytest.approx(expected)
    assert result["kernel_distance_std"] == pytest.approx(0, abs=1e-9)  # both subsets hold all rows


def test_kernel_distance_equals_torch_fidelity():
    real, generated = gaussian(50, 4, dtype=torch.float32), 2 * gaussian(40, 4, seed=1, dtype=torch.float32)
    options = {"kid_subsets": 5, "kid_subset_size": 20, "verbose": False}
    theirs = kid_features_to_metric(generated.double(), real.double(), **options)
    ours = kernel_distance(real, generated, subsets=5, subset_size=20)
    assert ours["kernel_distance_mean"] == pytest.approx(theirs["kernel_inception_distance_mean"])
    assert ours["kernel_distance_std"] == pytest.approx(theirs["kernel_inception_distance_std"])
    assert (ours["subsets"], ours["subset_size"]) == (5, 20) and ours["kernel_distance_std"] > 0
    other = kernel_distance(real, generated, subsets=5, subset_size=20, seed=1)
    assert other["kernel_distance_mean"] != ours["kernel_distance_mean"]


def test_kernel_distance_has_no_bias_at_small_n():
    draws, n = 400, 10
    sets = gaussian(2, draws, n, 4)
    values = [
        kernel_distance(real, generated, subsets=1, subset_size=n)["kernel_distance_mean"]
        for real, generated in zip(*sets, strict=True)
    ]
    error = np.std(values) / draws**0.5
    # With the diagonals left in, as in the biased estimate, the mean would be 2 (E k(x, x) - E k(x, x')) / n.
    own = np.mean([(row @ row / 4 + 1) ** 3 for row in sets[0].flatten(0, 1).numpy()])
    crossed = (sets[0].flatten(0, 1) * sets[1].flatten(0, 1)).sum(1)
    bias = 2 * (own - float((crossed / 4 + 1).pow(3).mean())) / n
    assert abs(np.mean(values)) < 3 * error < bias / 2


def test_inception_score_of_uniform_and_of_separated_classes():
    uniform = inception_score(torch.full((40, 7), 3.0), splits=4)
    assert uniform == {"inception_score_mean": pytest.approx(1), "inception_score_std": pytest.approx(0), "splits": 4}
    for height in (60.0, 1e4):  # at 1e4 the other classes underflow
        separated = height * torch.eye(5).repeat(20, 1)
        result = inception_score(separated, splits=10, shuffle=False)
        assert result["inception_score_mean"] == pytest.approx(5)
        assert result["inception_score_std"] == pytest.approx(0, abs=1e-9)
        by_class = height * torch.eye(5).repeat_interleave(20, 0)
        assert inception_score(by_class, splits=5, shuffle=False)["inception_score_mean"] == pytest.approx(1)
        assert 3 < inception_score(by_class, splits=5)["inception_score_mean"] < 5


def test_inception_score_is_the_definition_written_out():
    logits = 2 * gaussian(24, 6)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    scores = [np.exp((part * np.log(part / part.mean(0))).sum(1).mean()) for part in (p[:12], p[12:])]
    result = inception_score(logits, splits=2, shuffle=False)
    assert result["inception_score_mean"] == pytest.approx(np.mean(scores))
    assert result["inception_score_std"] == pytest.approx(np.std(scores))


def test_a_planted_copy_is_found_with_its_index():
    training, query = gaussian(300, 64) + 1e3, gaussian(20, 64, seed=1) + 1e3
    query[4], query[11] = training[217], training[0]
    distances, indices = nearest_training(query, training)
    assert (distances[4], distances[11]) == (0, 0) and (indices[4], indices[11]) == (217, 0)
    assert int((distances == 0).sum()) == 2
    expected = np.linalg.norm(query.numpy()[:, None] - training.numpy(), axis=2)
    np.testing.assert_allclose(distances.numpy(), expected.min(1), rtol=1e-12)
    np.testing.assert_array_equal(indices.numpy(), expected.argmin(1))
    for batch_size in (1, 13):
        again = nearest_training(query, training, batch_size)
        assert torch.equal(again[0], distances) and torch.equal(again[1], indices)


def test_nearest_distances_are_compared_with_those_of_test_images():
    test = torch.arange(1, 1001).double()
    samples = torch.tensor([5.0] * 10 + [2000.0] * 30)
    result = compare_nearest(samples, test, bins=20)
    assert result["copy_threshold"] == pytest.approx(1 + 0.01 * 999) and result["copy_fraction"] == 0.25
    assert (result["nearest_distance_median"], result["nearest_distance_median_test"]) == (2000, 500.5)
    assert (result["n"], result["n_test"], result["copy_percentile"]) == (40, 1000, 1)
    histogram = json.loads(json.dumps(result))["histogram"]
    assert histogram["edges"] == pytest.approx(list(range(0, 2001, 100)))
    assert histogram["samples"] == [10] + [0] * 18 + [30]
    assert histogram["test"] == [99] + [100] * 9 + [1] + [0] * 9
    assert compare_nearest(samples, test, percentile=50)["copy_threshold"] == 500.5


def test_exact_copies_count_even_where_test_images_are_copies():
    result = compare_nearest(torch.tensor([0.0, 0, 0, 1]), torch.zeros(100))
    assert result["copy_fraction"] == 0.75 and result["copy_threshold"] == 0


def test_fraction_of_copies_is_the_percentile_without_and_more_with_copies():
    training, test, samples = gaussian(1000, 6), gaussian(1000, 6, seed=1), gaussian(1000, 6, seed=2)
    test_distances = nearest_training(test, training)[0]
    fraction = compare_nearest(nearest_training(samples, training)[0], test_distances)["copy_fraction"]
    assert 0.001 < fraction < 0.025
    samples[:50] = training[:50]
    with_copies = compare_nearest(nearest_training(samples, training)[0], test_distances)["copy_fraction"]
    assert 0.05 <= with_copies < 0.05 + 0.025


def test_pairwise_distance_is_the_mean_over_pairs_and_prompts():
    line, same = torch.tensor([[0.0, 0], [3, 4], [6, 8]]), torch.full((3, 2), 0.1)
    assert pairwise_distance(torch.stack([line, same])) == pytest.approx((5 + 5 + 10) / 3 / 2)
    assert pairwise_distance(same[None]) == 0


def test_bootstrap_covers_a_known_mean_at_about_the_nominal_level():
    hits, sets = {0.95: 0, 0.5: 0}, 150
    for index in range(sets):
        values = gaussian(60, seed=index).exp()  # log-normal, mean exp(1/2)
        for confidence in hits:
            result = bootstrap_interval(lambda rows, v=values: v[rows].mean(), 60, 60, confidence, seed=index)
            hits[confidence] += result["low"] < np.exp(0.5) < result["high"]
    assert 0.82 < hits[0.95] / sets < 0.98 and 0.36 < hits[0.5] / sets < 0.62


def test_bootstrap_is_basic_and_its_seed_decides_the_draws():
    values = gaussian(40) ** 3
    drawn = []

    def statistic(rows):
        drawn.append(values[rows].max().item())
        return drawn[-1]

    result = bootstrap_interval(statistic, 40, resamples=50, confidence=0.9)
    estimate, resampled = drawn[0], drawn[1:]
    assert estimate == values.max() and len(resampled) == 50 and min(resampled) < estimate
    assert result["low"] == pytest.approx(2 * estimate - np.quantile(resampled, 0.95))
    assert result["high"] == pytest.approx(2 * estimate - np.quantile(resampled, 0.05))
    assert result["bias"] == pytest.approx(np.mean(resampled) - estimate)
    assert (result["confidence"], result["resamples"]) == (0.9, 50)
    assert bootstrap_interval(statistic, 40, 50, 0.9) == result
    assert bootstrap_interval(statistic, 40, 50, 0.9, seed=1) != result


def fitted(features: torch.Tensor, spectrum: torch.Tensor) -> tuple[torch.Tensor, Statistics]:
    """Correlated features with this spectrum, and a reference with other correlations."""
    dim = len(spectrum)
    basis, other = (torch.linalg.qr(gaussian(dim, dim, seed=seed))[0] for seed in (10, 11))
    sigma = (other * spectrum.flip(0) * 1.3) @ other.T
    return features * spectrum.sqrt() @ basis.T + 0.2, Statistics(np.linspace(0, 1, dim), sigma.numpy(), 0, {})


def test_frechet_interval_equals_resampling_the_rows_with_torch_fidelity():
    features, reference = fitted(gaussian(90, 24), torch.logspace(-4, 1, 24, dtype=torch.float64))

    def distance(rows):
        return frechet_distance(feature_statistics(features[rows]), reference)

    expected = bootstrap_interval(distance, 90, resamples=40, seed=3)
    result = frechet_interval(features, reference, resamples=40, seed=3)
    assert result == pytest.approx(expected, rel=1e-6)
    assert expected["low"] < expected["high"] and expected["bias"] > 0
    assert frechet_interval(features, reference, resamples=40, seed=4)["low"] != result["low"]


@pytest.mark.parametrize("n", [65, 400])
def test_distance_through_symmetric_roots_equals_torch_fidelity(n):
    # 65 rows: the resamples have no full rank, and the smallest eigenvalues are rounding
    features, reference = fitted(gaussian(n, 64), torch.logspace(-6, 2, 64, dtype=torch.float64))
    rows = torch.randint(n, (n,), generator=torch.Generator().manual_seed(0))
    expected = frechet_distance(feature_statistics(features[rows]), reference)
    result = frechet_interval(features[rows], reference, resamples=40)
    assert result["estimate"] == pytest.approx(expected, rel=1e-6) and expected > 1


def test_kernel_interval_is_of_the_unbiased_estimate_and_of_resampled_rows():
    real, generated = gaussian(30, 5, seed=1), gaussian(40, 5, seed=2) * 1.4 + 0.3

    def mmd(rows):
        def kernel(first, second):
            return (first @ second.T / 5 + 1) ** 3

        one = generated[rows]
        among = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (kernel(one, one), kernel(real, real))]
        return float(sum(among) - 2 * kernel(one, real).mean())

    expected = bootstrap_interval(mmd, 40, resamples=40, seed=3)
    assert kernel_interval(real, generated, resamples=40, seed=3, batch_size=7) == pytest.approx(expected, rel=1e-9)
    whole = kernel_distance(real, generated[:30], subsets=1, subset_size=30)["kernel_distance_mean"]
    assert kernel_interval(real, generated[:30])["estimate"] == pytest.approx(whole, rel=1e-9)


def test_manifold_intervals_are_of_resampled_rows_in_the_balls_of_the_real_ones():
    real, generated = gaussian(50, 3, seed=1), gaussian(60, 3, seed=2) * 1.2
    metrics = manifold_metrics(real, generated, k=3)
    intervals = manifold_intervals(real, generated, 3, resamples=60, seed=5, batch_size=9)
    radii = torch.cdist(real, real).kthvalue(4, dim=1).values
    hits = (torch.cdist(real, generated) <= radii[:, None]).double()

    def interval(statistic):
        return interval_at_n(bootstrap_interval(statistic, 60, resamples=60, seed=5))

    expected = {
        "precision": interval(lambda rows: hits[:, rows].any(dim=0).double().mean()),
        "density": interval(lambda rows: hits[:, rows].sum() / (3 * 60)),
        "coverage": interval(lambda rows: hits[:, rows].any(dim=1).double().mean()),
    }
    for name, one in expected.items():
        assert intervals[name] == pytest.approx(one), name
        assert one["low"] < one["high"]
    assert intervals["precision"]["low"] < metrics["precision"] < intervals["precision"]["high"]
    assert set(intervals) == set(expected)  # recall has none


def test_frechet_interval_holds_the_true_distance_where_percentiles_do_not():
    n, dim, sets = 150, 12, 40
    spectrum = torch.linspace(0.5, 2, dim, dtype=torch.float64)
    reference = Statistics(np.zeros(dim), np.eye(dim), 0, {})
    true = float(0.3**2 + ((spectrum.sqrt() - 1) ** 2).sum())
    results, basic, percentile, at_n = [], 0, 0, 0
    for index in range(sets):
        features = gaussian(n, dim, seed=index) * spectrum.sqrt()
        features[:, 0] += 0.3
        results.append(frechet_interval(features, reference, resamples=60, seed=index))
    mean = np.mean([one["estimate"] for one in results])  # the expected distance at this n
    for one in results:
        low, high, estimate = one["low"], one["high"], one["estimate"]
        basic += low < true < high
        percentile += 2 * estimate - high < true < 2 * estimate - low
        at_n += low + one["bias"] < mean < high + one["bias"]
    assert mean > 1.2 * true
    assert basic >= 0.75 * sets and at_n >= 0.85 * sets and percentile <= 0.2 * sets


UNIT = Statistics(np.zeros(4), np.eye(4), 0, {})
FEATURES = gaussian(12, 4)
LABELS = torch.arange(12) % 4


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: manifold_metrics(FEATURES, FEATURES, k=0), "k is 0; accepted is 1 or more"),
        (lambda: manifold_metrics(FEATURES, FEATURES, batch_size=0), "batch_size is 0; accepted is 1 or more"),
        (lambda: manifold_metrics(FEATURES, FEATURES[:3]), "3 generated rows are too few: at least 4"),
        (lambda: manifold_metrics(FEATURES[:5], FEATURES, k=5), "5 real rows are too few: at least 6"),
        (lambda: manifold_metrics(FEATURES, FEATURES[:, :3]), "real rows have 4 features, generated rows 3"),
        (lambda: manifold_metrics(with_a_nan(FEATURES), FEATURES), "real row 1 is not finite"),
        (lambda: manifold_metrics(FEATURES, FEATURES[None]), r"generated rows are torch.float64 \(1, 12, 4\)"),
        (lambda: manifold_metrics(FEATURES.long(), FEATURES), "real rows are torch.int64"),
        (lambda: kernel_distance(FEATURES, FEATURES), "subset_size is 1000; accepted is 2 to 12"),
        (lambda: kernel_distance(FEATURES, FEATURES[:9], subset_size=10), "subset_size is 10; accepted is 2 to 9"),
        (lambda: kernel_distance(FEATURES, FEATURES, subset_size=1), "subset_size is 1; accepted is 2 to 12"),
        (lambda: kernel_distance(FEATURES, FEATURES, subsets=0, subset_size=5), "subsets is 0; accepted is 1"),
        (lambda: kernel_distance(FEATURES, FEATURES, degree=0, subset_size=5), "degree is 0; accepted is 1"),
        (lambda: kernel_distance(FEATURES, FEATURES[:, :2], subset_size=5), "real rows have 4 features, generated"),
        (lambda: kernel_distance(FEATURES, with_a_nan(FEATURES)), "generated row 1 is not finite"),
        (lambda: inception_score(FEATURES, splits=0), "splits is 0; accepted is 1 or more"),
        (lambda: inception_score(FEATURES, splits=13), "12 logit rows are too few: at least 13"),
        (lambda: inception_score(with_a_nan(FEATURES), splits=2), "logit row 1 is not finite"),
        (lambda: nearest_training(FEATURES, FEATURES, 0), "batch_size is 0; accepted is 1 or more"),
        (lambda: nearest_training(FEATURES, FEATURES[:0]), "0 training rows are too few"),
        (lambda: nearest_training(FEATURES[:, :3], FEATURES), "query rows have 3 features, training rows 4"),
        (lambda: nearest_training(with_a_nan(FEATURES), FEATURES), "query row 1 is not finite"),
        (lambda: compare_nearest(torch.ones(3), torch.ones(99)), "99 test distances are too few for percentile 1"),
        (lambda: compare_nearest(torch.ones(3), torch.ones(100), 100), "percentile is 100; accepted is above 0"),
        (lambda: compare_nearest(torch.ones(3), torch.ones(100), bins=0), "bins is 0; accepted is 1 or more"),
        (lambda: compare_nearest(torch.ones(0), torch.ones(100)), r"sample distances are \(0,\)"),
        (lambda: compare_nearest(torch.ones(3), -torch.ones(100)), "test distances reach from -1.0 to -1.0"),
        (lambda: pairwise_distance(FEATURES), r"features are \(12, 4\); accepted is \[prompts, seeds, F\]"),
        (lambda: pairwise_distance(FEATURES[:, None]), "12 prompts with 1 seeds; accepted is"),
        (lambda: pairwise_distance(with_a_nan(FEATURES)[None]), "seed row 1 is not finite"),
        (lambda: bootstrap_interval(len, 1), "n is 1; accepted is 2 or more"),
        (lambda: bootstrap_interval(len, 9, confidence=1), "confidence is 1; accepted is above 0 and below 1"),
        (lambda: bootstrap_interval(len, 9, resamples=39), "resamples is 39; accepted is 40 or more for a .* 0.95"),
        (lambda: bootstrap_interval(lambda rows: float("nan"), 9), "the statistic is nan"),
        (lambda: frechet_interval(FEATURES[:4], UNIT), "4 images are too few: the covariance of 4 features needs"),
        (lambda: frechet_interval(FEATURES[:, :3], UNIT), "3 features against 4: not of the same extractor"),
        (lambda: frechet_interval(with_a_nan(FEATURES), UNIT), "sample row 1 is not finite"),
        (lambda: frechet_interval(FEATURES, UNIT, resamples=1), "resamples is 1; accepted is 40 or more"),
        (lambda: manifold_intervals(FEATURES, FEATURES, 0), "k is 0; accepted is 1 or more"),
        (lambda: feature_statistics(FEATURES[0]), r"feature rows are torch.float64 \(4,\)"),
        (lambda: Statistics(np.full(4, np.inf), np.eye(4), 9, {}), "the mean of 4 features holds a value that is not"),
        (lambda: Statistics(np.zeros(4), np.full((4, 4), np.nan), 9, {}), "the covariance of 4 features holds a"),
        (lambda: top_k_accuracy(with_a_nan(FEATURES), LABELS), "logit row 1 is not finite"),
        (lambda: top_k_accuracy(FEATURES[:0], LABELS[:0]), "0 logit rows are too few"),
        (lambda: top_k_accuracy(FEATURES, LABELS[:11]), r"labels are \(11,\); accepted is one a logit row, \[12\]"),
        (lambda: top_k_accuracy(FEATURES, LABELS + 1), "labels reach from 1 to 4; accepted is 0 to 3"),
        (lambda: top_k_accuracy(FEATURES, LABELS - 1), "labels reach from -1 to 2; accepted is 0 to 3"),
        (lambda: top_k_accuracy(FEATURES, LABELS, 0), "k is 0; accepted is 1 to 4"),
        (lambda: top_k_accuracy(FEATURES, LABELS, 5), "k is 5; accepted is 1 to 4"),
    ],
)
def test_bad_values_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
