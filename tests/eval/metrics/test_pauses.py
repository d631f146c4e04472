"""Long computations pause between their pieces, and a pause changes no figure."""

import threading

import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from eval.metrics.bootstrap import frechet_interval, kernel_interval, manifold_intervals
from eval.metrics.frechet import feature_statistics
from eval.metrics.kernel import kernel_distance
from eval.metrics.manifold import manifold_metrics
from eval.metrics.pauses import pause, pause_before, pausing


def features(seed: int, n: int = 60) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


REAL, GENERATED = features(0), features(1) + 0.3
COMPUTATIONS = {
    "frechet_interval": (lambda: frechet_interval(GENERATED, feature_statistics(REAL), 50), 50),
    "kernel_interval": (lambda: kernel_interval(REAL, GENERATED, batch_size=20), 3),
    "kernel_distance": (lambda: kernel_distance(REAL, GENERATED, subsets=7, subset_size=30), 7),
    "manifold_metrics": (lambda: manifold_metrics(REAL, GENERATED, batch_size=20), 15),
    "manifold_intervals": (lambda: manifold_intervals(REAL, GENERATED, 3, batch_size=20), 3),
}


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_each_piece_has_a_pause_that_changes_nothing(name):
    compute, pieces = COMPUTATIONS[name]
    pauses = []
    with pausing(lambda: pauses.append(None)):
        found = compute()
    assert len(pauses) == pieces
    assert found == compute() and len(pauses) == pieces


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_an_error_at_a_pause_ends_the_computation(name):
    def stop():
        raise InterruptedError

    with pausing(stop), pytest.raises(InterruptedError):
        COMPUTATIONS[name][0]()


def test_figures_are_those_of_torch_fidelity_in_one_go():
    options = {"kid_subsets": 7, "kid_subset_size": 30, "rng_seed": 2020, "verbose": False}
    expected = kid_features_to_metric(GENERATED.double(), REAL.double(), **options)
    found = kernel_distance(REAL, GENERATED, subsets=7, subset_size=30)
    assert found["kernel_distance_mean"] == expected["kernel_inception_distance_mean"]
    assert found["kernel_distance_std"] == expected["kernel_inception_distance_std"]
    options = {"prc_neighborhood": 3, "prc_batch_size": 20, "save_cpu_ram": True, "verbose": False}
    expected = prc_features_to_metric(GENERATED.double(), REAL.double(), **options)
    found = manifold_metrics(REAL, GENERATED, k=3, batch_size=20)
    assert {key: found[key] for key in ("precision", "recall")} == {
        key: expected[key] for key in ("precision", "recall")
    }


def test_other_threads_do_not_pause():
    pauses = []
    with pausing(lambda: pauses.append(None)):
        other = threading.Thread(target=pause)
        other.start()
        other.join()
        assert not pauses
        pause()
    pause()
    assert len(pauses) == 1


def test_a_network_pauses_before_its_parts():
    layers, pauses = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU()), []
    pause_before(layers)
    with pausing(lambda: pauses.append(None)):
        layers(torch.zeros(1))
    assert len(pauses) == 2
