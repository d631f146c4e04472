"""Tabulate how each figure of quality ranks the rows beside how the distance ranks them."""

import numpy as np

from eval.reporting.tables import markdown_table, ordered, record_cells
from eval.schema import Record

RANKED_BY = "Fréchet distance"  # a column, to which the others are compared
COUNT = "n"  # a column that is no figure of quality
MIN_ROWS = 3  # two rows always agree or disagree


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Compute Spearman's correlation: Pearson's of the ranks, where equal values share the mean of their ranks.

    Source: Spearman, American Journal of Psychology 15, 1904.

    Raises:
        ValueError: the lists differ in length, or one has fewer than two different values.
    """
    if len(first) != len(second) or min(len(set(first)), len(set(second))) < 2:
        raise ValueError(f"{first} and {second}: accepted are two lists of one length, each of two values or more")
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: list[float]) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def correlations(records: dict[str, Record]) -> str:
    """Tabulate the rank correlation of every column of quality with the Frechet distance, over the rows with both.

    A column has no line if fewer than `MIN_ROWS` rows have both, or if all of them have one value.
    """
    rows = [record_cells(records[name])["quality"] for name in ordered(records)]
    rows = [row for row in rows if RANKED_BY in row]
    titles = dict.fromkeys(title for row in rows for title in row if title not in (RANKED_BY, COUNT))
    lines = []
    for title in titles:
        pairs = [(row[RANKED_BY].value, row[title].value) for row in rows if title in row]
        distances, figures = map(list, zip(*pairs, strict=True))
        if len(pairs) >= MIN_ROWS and len(set(distances)) > 1 and len(set(figures)) > 1:
            lines.append([title, f"{rank_correlation(distances, figures):.2f}", str(len(pairs))])
    return markdown_table(("", f"rank correlation with the {RANKED_BY}", "rows"), lines)
