"""Score models by the answers on which of two drew the better picture."""

from collections import Counter

import torch

from eval.metrics.bradley_terry import bradley_terry_scores
from eval.samples.answers import Answer

SHOWN = 12  # characters of a hash


def measure_arena(answers: list[Answer]) -> dict:
    """Score models by Bradley and Terry's model; weights that differ are models of their own.

    Returns:
        As `ArenaResult` of `eval.schema`, the best model first.

    Raises:
        ValueError: as in `bradley_terry_scores`.
    """
    weights = dict.fromkeys(
        (name, sha256)
        for one in answers
        for name, sha256 in ((one.left, one.left_sha256), (one.right, one.right_sha256))
    )
    several = Counter(name for name, _ in weights)
    names = [f"{name} ({sha256[:SHOWN]})" if several[name] > 1 else name for name, sha256 in weights]
    rows = {weight: row for row, weight in enumerate(weights)}
    wins, games = torch.zeros(len(rows), len(rows), dtype=torch.float64), torch.zeros(len(rows), dtype=torch.int64)
    for one in answers:
        left, right = rows[one.left, one.left_sha256], rows[one.right, one.right_sha256]
        share = {"left": 1.0, "same": 0.5, "right": 0.0}[one.preferred]
        wins[left, right] += share
        wins[right, left] += 1 - share
        games[[left, right]] += 1
    scores = bradley_terry_scores(wins, names)
    models = {
        name: {"model_sha256": sha256, "games": int(games[row]), "wins": wins[row].sum().item(), **scores[name]}
        for row, (name, (_, sha256)) in enumerate(zip(names, weights, strict=True))
    }
    return {
        "n": len(answers),
        "ties": sum(one.preferred == "same" for one in answers),
        "confidence": 0.95,
        "models": dict(sorted(models.items(), key=lambda item: -item[1]["score"])),
    }
