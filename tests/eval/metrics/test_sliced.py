"""The sliced Wasserstein distance, by closed forms and by brute force over pairings."""

from itertools import permutations

import pytest
import torch

from eval.metrics.sliced import sliced_wasserstein


def rows(seed, n=60, dim=4):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_of_a_shift_it_is_the_square_of_its_length_over_the_dimensions():
    """The mean of (u . shift)^2 over unit u in F dimensions is |shift|^2 / F."""
    shift = torch.tensor([3.0, 0.0, -1.0, 2.0])
    assert sliced_wasserstein(rows(0), rows(0) + shift, directions=20000) == pytest.approx(14 / 4, rel=0.03)


def test_of_normal_rows_it_is_the_closed_form():
    """The projections of N(mu, s^2 I) are N(u . mu, s^2): a distance of (u . mu)^2 + (s - 1)^2."""
    real, generated = rows(1, 4000), 1.5 * rows(2, 4000) + 1
    assert sliced_wasserstein(real, generated, directions=400) == pytest.approx(1 + 0.25, rel=0.1)


def test_in_one_dimension_it_is_the_best_pairing():
    real, generated = rows(3, 6, 1), 2 * rows(4, 6, 1) + 1
    pairings = [((real - generated[list(order)]) ** 2).mean().item() for order in permutations(range(6))]
    assert sliced_wasserstein(real, generated, directions=3) == pytest.approx(min(pairings))


def test_batches_of_directions_change_nothing_and_a_set_is_nearest_to_itself():
    values = [sliced_wasserstein(rows(5), rows(6), directions=50, batch_size=size) for size in (1, 7, 50)]
    assert values == pytest.approx([values[0]] * 3) and values[0] > 0
    assert sliced_wasserstein(rows(5), rows(5)[torch.arange(59, -1, -1)]) == pytest.approx(0, abs=1e-12)


def test_other_numbers_of_rows_and_no_directions_are_refused():
    with pytest.raises(ValueError, match="60 real rows, 30 generated rows: accepted are equally many"):
        sliced_wasserstein(rows(0), rows(1)[:30])
    with pytest.raises(ValueError, match="directions is 0; accepted is 1 or more"):
        sliced_wasserstein(rows(0), rows(1), directions=0)
