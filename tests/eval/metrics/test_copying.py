"""Authentic samples and the C_T statistic, by hand and by brute force."""

import statistics
from itertools import combinations

import pytest
import torch

from eval.metrics.copying import LEAST, copying_statistic, k_means, rank_score
from eval.metrics.nearest import authentic


def rows(seed, n=60, dim=4):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_authentic_by_hand():
    training = torch.tensor([[0.0], [1.0], [10.0]])
    query = torch.tensor([[0.5], [-1.5], [3.0], [18.0], [20.0], [10.0]])
    # nearest rows 0 or 1, 0, 1, 10, 10, 10, whose nearest other rows are 1, 1, 1, 9, 9, 9 away
    assert authentic(query, training).tolist() == [False, True, True, False, True, False]


def test_authentic_is_what_all_distances_say():
    query, training = 1.5 * rows(0), rows(1, 90)
    between, among = torch.cdist(query, training), torch.cdist(training, training).fill_diagonal_(torch.inf)
    nearest = between.argmin(dim=1)
    expected = between.min(dim=1).values > among.min(dim=1).values[nearest]
    found = authentic(query, training, batch_size=7)
    assert found.tolist() == expected.tolist() and 0 < found.double().mean() < 1
    assert not authentic(training, training).any(), "copies"


def test_one_training_row_has_no_gap():
    with pytest.raises(ValueError, match="1 training rows are too few"):
        authentic(rows(0), rows(1)[:1])


@pytest.mark.parametrize("ties", [False, True])
def test_the_rank_score_counts_pairs(ties):
    first, second = rows(0, 40, 1)[:, 0] + 0.3, rows(1, 70, 1)[:, 0]
    if ties:
        first, second = first.round(decimals=1), second.round(decimals=1)
    u = sum((x > y).item() + (x == y).item() / 2 for x in first for y in second)
    expected = (u - 40 * 70 / 2) / (40 * 70 * 111 / 12) ** 0.5
    assert rank_score(first, second) == pytest.approx(expected) and expected > 0
    assert rank_score(second, first) == pytest.approx(-expected)


def test_over_all_orders_the_rank_score_has_mean_0_and_variance_1():
    values = torch.arange(9.0)
    scores = []
    for chosen in combinations(range(9), 4):
        rest = [index for index in range(9) if index not in chosen]
        scores.append(rank_score(values[list(chosen)], values[rest]))
    assert statistics.mean(scores) == pytest.approx(0) and statistics.pvariance(scores) == pytest.approx(1)


def test_one_cell_gives_the_rank_score_of_nearest_distances():
    samples, test, training = rows(0), rows(1, 80), rows(2, 100)
    distances = [torch.cdist(one, training).min(dim=1).values for one in (samples, test)]
    result = copying_statistic(samples, test, training, cells=1)
    assert result == {"c_t": pytest.approx(rank_score(*distances)), "c_t_cells": 1}


def test_copies_in_one_of_two_cells_are_found_though_the_other_underfits():
    centre = torch.tensor([20.0, 0.0, 0.0, 0.0])
    training = torch.cat([rows(0, 200), rows(1, 200) + centre])
    test = torch.cat([rows(2, 50), rows(3, 50) + centre])
    copied, far = training[:50] + 0.01 * rows(4, 50), 2 * rows(5, 50) + centre
    samples = torch.cat([copied, far])
    result = copying_statistic(samples, test, training, cells=2)
    scores = [
        rank_score(*(torch.cdist(one, training).min(dim=1).values for one in pair))
        for pair in ((copied, test[:50]), (far, test[50:]))
    ]
    assert scores[0] < -6 and scores[1] > 3
    assert result == {"c_t": pytest.approx(sum(scores) / 2), "c_t_cells": 2}
    honest = copying_statistic(torch.cat([rows(6, 50), rows(7, 50) + centre]), test, training, cells=2)
    assert abs(honest["c_t"]) < 2


def test_cells_with_too_few_rows_do_not_count():
    result = copying_statistic(rows(0)[: LEAST - 1], rows(1), rows(2), cells=1)
    assert result == {"c_t": None, "c_t_cells": 0}


def test_centres_of_two_clouds_are_their_means():
    clouds = rows(0, 50), rows(1, 70) + 30
    centres = k_means(torch.cat(clouds), 2)
    ordered = centres[centres[:, 0].argsort()]
    torch.testing.assert_close(ordered, torch.stack([one.mean(dim=0) for one in clouds]))
    with pytest.raises(ValueError, match="3 training rows are too few"):
        k_means(rows(0)[:3], 4)
