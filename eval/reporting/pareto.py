"""Find the models that none other beats in cost and distance alike."""


def pareto_front(points: dict[str, tuple[float, float]]) -> list[str]:
    """List the Pareto-optimal points: none other is as good in both coordinates and better in one.

    Args:
        points: (cost, distance) by name; lower is better in both.

    Returns:
        Names, the cheapest first.
    """

    def dominated(name: str) -> bool:
        x, y = points[name]
        return any(a <= x and b <= y and (a, b) != (x, y) for a, b in points.values())

    return sorted((name for name in points if not dominated(name)), key=points.__getitem__)
