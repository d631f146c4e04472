"""Run generators that yield sentences for their result."""

from collections.abc import Generator
from typing import Any


def result(steps: Generator[str, None, Any]) -> Any:
    """Take all steps, and return what the generator returns."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value
