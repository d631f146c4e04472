"""The models that none other beats."""

from eval.reporting.pareto import pareto_front


def test_the_pareto_front_holds_what_nothing_beats():
    points = {"slow": (100, 5), "fast": (1, 9), "middle": (10, 7), "beaten": (20, 8), "as fast, worse": (1, 10)}
    assert pareto_front(points) == ["fast", "middle", "slow"]
    assert sorted(pareto_front({"one": (1, 1), "twin": (1, 1)})) == ["one", "twin"]
