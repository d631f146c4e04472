"""Bradley-Terry scores: log odds of two models, closed forms, exact strengths, games that say too little."""

import math

import pytest
import torch

from eval.metrics.bradley_terry import bradley_terry_scores

Z = 1.959964


def wins_of(strengths: list[float], games: float) -> torch.Tensor:
    """The preferences that strengths make one expect in as many games of each two."""
    p = torch.tensor(strengths, dtype=torch.float64)
    return (games * p[:, None] / (p[:, None] + p)).fill_diagonal_(0)


def test_two_models_are_as_far_apart_as_their_log_odds():
    scores = bradley_terry_scores(torch.tensor([[0.0, 30.0], [10.0, 0.0]]), ["a", "b"])
    assert scores["a"]["score"] - scores["b"]["score"] == pytest.approx(400 * math.log10(3))
    assert scores["a"]["score"] + scores["b"]["score"] == pytest.approx(2000)
    # the variance of log odds is 1 / wins + 1 / losses, and each score holds half of the distance
    width = Z * 400 / math.log(10) * math.sqrt(1 / 30 + 1 / 10) / 2
    for one in scores.values():
        assert one["high"] - one["score"] == one["score"] - one["low"] == pytest.approx(width, rel=1e-6)


def test_odds_of_ten_to_one_are_four_hundred_points():
    scores = bradley_terry_scores(torch.tensor([[0, 10], [1, 0]]), ["a", "b"])
    assert scores["a"]["score"] == pytest.approx(1200) and scores["b"]["score"] == pytest.approx(800)


def test_equal_models_have_the_interval_of_the_closed_form():
    models, games = 5, 8
    scores = bradley_terry_scores(wins_of([1] * models, games), list("abcde"))
    # information games / 4 * (M I - J), whose pseudoinverse has 4 (M - 1) / (games M^2) on its diagonal
    width = Z * 400 / math.log(10) * math.sqrt(4 * (models - 1) / (games * models**2))
    for one in scores.values():
        assert one["score"] == pytest.approx(1000) and one["high"] - 1000 == pytest.approx(width, rel=1e-6)


def test_expected_preferences_give_their_strengths_back():
    strengths = [8.0, 4.0, 1.0, 0.25]
    wins = wins_of(strengths, 100)
    wins[0, 3] = wins[3, 0] = 0  # who never met
    scores = bradley_terry_scores(wins, list("abcd"))
    expected = [1000 + 400 * (math.log10(one) - math.log10(math.prod(strengths)) / 4) for one in strengths]
    assert [one["score"] for one in scores.values()] == pytest.approx(expected)


def test_a_chain_of_many_models_converges():
    models = 30
    wins = torch.zeros(models, models)
    for one in range(models - 1):
        wins[one, one + 1], wins[one + 1, one] = 2, 1
    scores = [one["score"] for one in bradley_terry_scores(wins, [str(one) for one in range(models)]).values()]
    gaps = [better - worse for better, worse in zip(scores[:-1], scores[1:], strict=True)]
    assert gaps == pytest.approx([400 * math.log10(2)] * (models - 1), rel=1e-4)


def test_four_times_the_games_halve_the_interval():
    few, many = (bradley_terry_scores(wins_of([3, 1, 2], games), list("abc")) for games in (10, 40))
    for name in "abc":
        assert few[name]["high"] - few[name]["low"] == pytest.approx(2 * (many[name]["high"] - many[name]["low"]))


@pytest.mark.parametrize(
    ("wins", "message"),
    [
        ([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], "a, b had no game with c, d"),
        ([[0, 3, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], "d won against none of a, b, c, not even half"),
        ([[0, 3, 1, 1], [1, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 0]], "c, d won against none of a, b, not even half"),
        ([[0, 1, 1, -1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], "negative or infinite"),
        ([[0, 1, 1, math.nan], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], "negative or infinite"),
        ([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], "games of a model with itself"),
        ([[0, 1], [1, 0]], r"wins are \(2, 2\) of 4 models; accepted is \[M, M\]"),
    ],
)
def test_games_that_say_too_little_are_refused_by_the_models_names(wins, message):
    with pytest.raises(ValueError, match=message):
        bradley_terry_scores(torch.tensor(wins), list("abcd"))


def test_one_model_has_no_score():
    with pytest.raises(ValueError, match="of 1 models; accepted is"):
        bradley_terry_scores(torch.zeros(1, 1), ["a"])
