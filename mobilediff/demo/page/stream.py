"""Run a generator in threads for gradio: a visitor who leaves stops it, and bad input becomes a message."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import gradio as gr

T = TypeVar("T")


async def next_step(steps: Iterator[T], cancelled: threading.Event) -> T | None:
    """Take the next of `steps` in a thread; None after the last.

    A visitor who cancels leaves once the thread has ended, so that the next visitor's call does not meet it.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(next, steps, None))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([thread])
        raise


async def stream(start: Callable[[threading.Event], Iterator[T]]) -> AsyncIterator[T]:
    """Yield what an iterator yields that ends soon after its event is set; a ValueError becomes a message."""
    cancelled = threading.Event()
    try:
        steps = start(cancelled)
        while (step := await next_step(steps, cancelled)) is not None:
            yield step
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error
