"""Show the sentences of long work while it goes on."""

import html
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")


def status(text: str) -> str:
    """Write a sentence as HTML that screen readers say."""
    return f'<p role="status">{html.escape(text)}</p>'


def shown(steps: Generator[str, None, T], show: Callable[[str], S]) -> Generator[S, None, T]:
    """Yield each sentence of `steps` as `show` lays it out, and return their result."""
    while True:
        try:
            sentence = next(steps)
        except StopIteration as end:
            return end.value
        yield show(sentence)
