"""Agreement of found and given conditions."""

import pytest
import torch

from eval.metrics.agreement import color_error, edge_f1


def line(row: int, length: int = 8) -> torch.Tensor:
    edges = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    edges[0, 0, row, :length] = True
    return edges


def test_a_neighbouring_pixel_counts_and_the_next_one_does_not():
    assert edge_f1(line(3), line(3)) == edge_f1(line(4), line(3)) == 1
    assert edge_f1(line(5), line(3)) == 0


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    # half of the given line is found, one pixel more is near; another line is found for nothing
    found = line(3, length=4) | line(7)
    assert edge_f1(found, line(3)) == pytest.approx(2 / (12 / 4 + 8 / 5))


def test_pixels_of_all_images_count_alike():
    given = torch.cat([line(3), line(3, length=2)])
    found = torch.cat([line(3), line(7, length=2)])
    assert edge_f1(found, given) == pytest.approx(0.8)


def test_no_found_edge_is_zero_and_no_given_one_is_refused():
    none = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    assert edge_f1(none, line(3)) == 0
    with pytest.raises(ValueError, match="no edge is given"):
        edge_f1(line(3), none)


def test_the_error_of_colors_is_in_levels():
    given = torch.zeros(2, 3, 4, 4)
    found = given.clone()
    found[0] = 2 / 255
    assert color_error(found, given) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("metric", [edge_f1, color_error])
def test_other_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"found is \(1, 1, 8, 8\) and given \(1, 1, 4, 4\)"):
        metric(line(3), line(3)[..., ::2, ::2])
