"""Score models by which of two was preferred (Bradley and Terry, Biometrika 39, 1952).

    w_ij    how often i was preferred to j; a tie is half a preference each way
    n_ij    w_ij + w_ji, the games of i and j
    p_i     strength of i: P(i is preferred to j) = p_i / (p_i + p_j)

A score is 1000 + 400 log10 p_i, where the mean score is 1000: 400 points are odds of ten to one, as in Elo's scale.
"""

import math

import torch

from eval.metrics.bootstrap import Z

MEAN, POINTS = 1000.0, 400 / math.log(10)  # of the scores; of a unit of log p
TOLERANCE = 1e-12  # of all games: between the preferences counted and those expected
MOST_ITERATIONS = 100_000


def bradley_terry_scores(wins: torch.Tensor, names: list[str]) -> dict[str, dict[str, float]]:
    """Estimate scores of maximum likelihood, with 95 % intervals from the Fisher information.

    The strengths are iterated as in Hunter (Annals of Statistics 32, 2004), equation 3. The intervals are about the
    distance to the mean score, and of many games; a tie counts as a game like any other, which makes them wider
    rather than narrower.

    Args:
        wins: w, floats [M, M].
        names: of the M models, in the order of the rows.

    Returns:
        By name `score`, `low` and `high`.

    Raises:
        ValueError: not square or not of M rows, fewer than two models, a value that is negative or not finite, games
            of a model with itself; or models that have no games with the others, or were never preferred to one of
            them, which leaves their scores without a scale or infinite: names them.
    """
    wins = _checked(wins, names)
    games, won = wins + wins.T, wins.sum(dim=1)
    strengths = torch.ones_like(won)
    for _ in range(MOST_ITERATIONS):
        rates = games / (strengths[:, None] + strengths)
        if (won - strengths * rates.sum(dim=1)).abs().max() < TOLERANCE * won.sum():
            break
        strengths = won / rates.sum(dim=1)
        strengths = strengths / strengths.log().mean().exp()
    else:
        raise ValueError(
            f"no scores within {TOLERANCE} after {MOST_ITERATIONS} iterations: give the models more games"
        )
    chances = strengths[:, None] / (strengths[:, None] + strengths)
    information = -games * chances * chances.T
    information -= torch.diag(information.sum(dim=1))
    errors = torch.linalg.pinv(information, hermitian=True).diagonal().sqrt()  # of log p, whose mean is 0
    scores, widths = MEAN + POINTS * strengths.log(), Z * POINTS * errors
    rows = zip(names, scores.tolist(), widths.tolist(), strict=True)
    return {name: {"score": score, "low": score - width, "high": score + width} for name, score, width in rows}


def _checked(wins: torch.Tensor, names: list[str]) -> torch.Tensor:
    """Return the wins in float64; errors as in `bradley_terry_scores`."""
    if wins.shape != (len(names), len(names)) or len(names) < 2:
        raise ValueError(f"wins are {tuple(wins.shape)} of {len(names)} models; accepted is [M, M] of two or more")
    wins = wins.double()
    if not torch.isfinite(wins).all() or (wins < 0).any() or wins.diagonal().any():
        raise ValueError(
            "wins hold a negative or infinite value, or games of a model with itself; accepted are counts"
        )
    if parts := _parted(wins + wins.T, names):
        raise ValueError(f"{parts[0]} had no game with {parts[1]}: accepted are games that connect all models")
    if parts := _parted(wins, names):
        raise ValueError(
            f"{parts[0]} won against none of {parts[1]}, not even half: the scores would be infinitely far apart. "
            "Accepted are games in which each group of models has won against the rest"
        )
    return wins


def _parted(links: torch.Tensor, names: list[str]) -> tuple[str, str] | None:
    """Name models from which no link leads to the rest, and the rest; None if links lead from each model to all."""
    reached = torch.eye(len(names), dtype=torch.bool) | (links > 0)
    for middle in range(len(names)):
        reached = reached | (reached[:, middle, None] & reached[middle])
    first = reached[reached.sum(dim=1).argmin()].tolist()
    if all(first):
        return None
    inside, outside = ([name for name, one in zip(names, first, strict=True) if one is side] for side in (True, False))
    return ", ".join(inside), ", ".join(outside)
