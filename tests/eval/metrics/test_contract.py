"""The contract of every metric of features, and properties that hold for all of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_kid import kernel_mmd

from eval.metrics.accuracy import top_k_accuracy
from eval.metrics.bootstrap import bootstrap_interval, mean_interval
from eval.metrics.frechet import Statistics, feature_statistics, frechet_distance
from eval.metrics.kernel import gaussian_kernel_distance, kernel_distance
from eval.metrics.manifold import manifold_metrics
from eval.metrics.nearest import nearest_training
from eval.metrics.sliced import sliced_wasserstein

few = settings(derandomize=True, max_examples=10, deadline=None, database=None)
seeds = st.integers(0, 2**31)


def rows(seed, n=60, dim=4):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def frechet(real, generated):
    return frechet_distance(feature_statistics(real), feature_statistics(generated))


def kernel(real, generated):
    return kernel_distance(real, generated, subsets=20, subset_size=40)["kernel_distance_mean"]


def nearest(real, generated):
    return nearest_training(generated, real)[0].mean().item()


def missed(name):
    return lambda real, generated: 1 - manifold_metrics(real, generated)[name]


# Name to (metric, that grows with damage; its value of a set against itself at most; symmetric).
METRICS = {
    "frechet": (frechet, 1e-6, True),
    "kernel": (kernel, 0.1, False),
    "gaussian kernel": (gaussian_kernel_distance, 0.1, True),
    "sliced": (sliced_wasserstein, 1e-12, True),
    "nearest": (nearest, 0, False),
    "precision": (missed("precision"), 0, False),
    "recall": (missed("recall"), 0, False),
    "coverage": (missed("coverage"), 0, False),
}


@pytest.mark.parametrize(("metric", "identity", "symmetric"), METRICS.values(), ids=METRICS)
class TestMetricContract:
    def test_a_set_is_nearest_to_itself(self, metric, identity, symmetric):
        assert metric(rows(0), rows(0)) <= identity

    def test_order_of_the_sets(self, metric, identity, symmetric):
        first, second = rows(0), 2 * rows(1) + 1
        forth, back = metric(first, second), metric(second, first)
        assert forth == pytest.approx(back, rel=1e-6) if symmetric else forth >= 0 and back >= 0

    def test_grows_with_damage(self, metric, identity, symmetric):
        values = [metric(rows(0), rows(0) + shift) for shift in (0, 1, 3, 9)]
        assert values == sorted(values) and values[-1] > values[0]

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_refuses_values_that_are_not_finite(self, metric, identity, symmetric, value):
        damaged = rows(1)
        damaged[7, 2] = value
        for pair in ((rows(0), damaged), (damaged, rows(0))):
            with pytest.raises(ValueError, match="row 7 is not finite"):
                metric(*pair)

    def test_refuses_no_rows_and_other_features(self, metric, identity, symmetric):
        with pytest.raises(ValueError, match="too few"):
            metric(rows(0), rows(1)[:0])
        with pytest.raises(ValueError, match="not of the same extractor"):
            metric(rows(0), rows(1, dim=3))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (30, 50)])
def test_gaussian_kernel_distance_is_that_of_all_pairs(n, m):
    real, generated = rows(0, n) + 1, 2 * rows(1, m)
    real[3] = 0

    def kernel(x, y):
        return np.exp(-((x - y) ** 2).sum() / (2 * 0.7**2))

    units = [[row / max(np.linalg.norm(row), 1e-12) for row in one.numpy()] for one in (real, generated)]
    within = [np.mean([kernel(x, y) for i, x in enumerate(one) for j, y in enumerate(one) if i != j]) for one in units]
    expected = 1000 * (sum(within) - 2 * np.mean([kernel(x, y) for x in units[0] for y in units[1]]))
    found = gaussian_kernel_distance(real, generated, sigma=0.7, batch_size=7)
    assert found == pytest.approx(expected, rel=1e-9) and expected > 1
    if n == m:
        theirs = kernel_mmd(*(np.stack(one) for one in units), kid_kernel="rbf", kid_kernel_rbf_sigma=0.7)
        assert found == pytest.approx(1000 * theirs, rel=1e-9)
    with pytest.raises(ValueError, match="sigma is 0; accepted is above 0"):
        gaussian_kernel_distance(real, generated, sigma=0)


@few
@given(seeds)
def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form(seed):
    random = np.random.default_rng(seed)
    (mu1, mu2), (std1, std2) = random.normal(size=(2, 5)), random.uniform(0.1, 3, size=(2, 5))
    first, second = (Statistics(mu, np.diag(std**2), 9, {}) for mu, std in ((mu1, std1), (mu2, std2)))
    expected = ((mu1 - mu2) ** 2).sum() + ((std1 - std2) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


@few
@given(seeds, st.floats(-5, 5))
def test_shift_and_rotation_of_both_sets_change_nothing(seed, shift):
    first, second = rows(seed), 2 * rows(seed + 1)
    rotation = torch.linalg.qr(rows(seed + 2, 4)).Q
    moved = [one @ rotation + shift for one in (first, second)]
    assert frechet(*moved) == pytest.approx(frechet(first, second), rel=1e-5)
    assert manifold_metrics(*moved) == pytest.approx(manifold_metrics(first, second))


@few
@given(seeds, st.integers(1, 5), st.floats(0.1, 3))
def test_manifold_metrics_are_fractions(seed, k, scale):
    result = manifold_metrics(rows(seed), scale * rows(seed + 1), k=k)
    assert all(0 <= result[name] <= 1 for name in ("precision", "recall", "coverage"))
    assert 0 <= result["density"] <= 60 / k


@few
@given(seeds)
def test_accuracy_grows_with_k_to_1(seed):
    labels = torch.randint(4, (60,), generator=torch.Generator().manual_seed(seed))
    accuracies = [top_k_accuracy(rows(seed), labels, k) for k in (1, 2, 3, 4)]
    assert 0 <= accuracies[0] and accuracies == sorted(accuracies) and accuracies[-1] == 1


@few
@given(seeds)
def test_bootstrap_interval_of_a_mean_holds_it(seed):
    values = rows(seed)[:, 0]
    interval = bootstrap_interval(lambda drawn: values[drawn].mean().item(), 60, resamples=200)
    assert interval["low"] < interval["estimate"] < interval["high"]
    at_n = mean_interval(values)
    assert at_n["low"] < values.mean().item() < at_n["high"]
