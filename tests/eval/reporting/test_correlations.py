"""Ranks correlate as by hand, and the table has every column of quality that rows can be ranked by."""

from pathlib import Path

import pytest

from eval.reporting.correlations import correlations, rank_correlation
from eval.reporting.tables import SCALE
from eval.schema import read_results

RECORDS = read_results(Path(__file__).parents[3] / "docs" / "results.json").records


def test_ranks_alone_count_and_equal_values_share_theirs():
    assert rank_correlation([1, 2, 30], [0.1, 5, 6]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [9, 7, 3, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)  # 1 - 6 sum d^2 / (n (n^2 - 1))
    # ranks 1.5 1.5 3 and 1 2 3: covariance 1.5, variances 1.5 and 2
    assert rank_correlation([5, 5, 8], [1, 2, 3]) == pytest.approx(1.5 / 3**0.5)


@pytest.mark.parametrize("pair", [([1, 2], [1]), ([1, 1, 1], [1, 2, 3]), ([], [])])
def test_lists_that_have_no_order_are_refused(pair):
    with pytest.raises(ValueError, match="accepted are two lists of one length"):
        rank_correlation(*pair)


def test_the_table_has_the_columns_that_three_rows_have():
    rows = {name: RECORDS[name] for name in SCALE}  # of them the VAE and the noise each cost everything
    lines = correlations(rows).splitlines()
    assert lines[0] == "| | rank correlation with the Fréchet distance | rows |"
    assert "| class accuracy | -1.00 | 3 |" in lines and "| kernel distance | 1.00 | 3 |" in lines
    assert not any(line.startswith(("| n |", "| Fréchet distance |")) for line in lines)
    same = rows | {name: record.model_copy(update={"nouns": rows[SCALE[0]].nouns}) for name, record in rows.items()}
    assert "noun top-1" not in correlations(same)
    assert correlations({name: rows[name] for name in SCALE[:2]}).count("\n") == 1  # two rows: the titles alone
