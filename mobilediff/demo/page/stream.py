"""Run a generator in threads for gradio: a visitor who leaves stops it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from gradio.context import LocalContext

T = TypeVar("T")
LOOK_AROUND = 0.2  # seconds between two looks whether the visitor is still there


def has_left() -> bool:
    """Tell whether the call under way has lost its visitor's connection, which gradio itself sees between steps only.

    A call that came past gradio's queue is never said to be left.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = blocks._queue.event_ids_to_events.get(event_id) if blocks and event_id else None
    return event is not None and not event.alive


async def next_step(steps: Iterator[T], cancelled: threading.Event) -> T | None:
    """Take the next of `steps` in a thread; None after the last, and once the visitor has left.

    The call of a visitor who cancels or leaves ends once the thread has, so that the next visitor's does not meet it.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(next, steps, None))
    try:
        while not (await asyncio.wait([thread], timeout=LOOK_AROUND))[0]:
            if has_left():
                cancelled.set()
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([thread])
        raise
    step = thread.result()
    return None if cancelled.is_set() else step


async def stream(start: Callable[[threading.Event], Iterator[T]]) -> AsyncIterator[T]:
    """Yield what an iterator yields that ends soon after its event is set."""
    cancelled = threading.Event()
    steps = start(cancelled)
    while (step := await next_step(steps, cancelled)) is not None:
        yield step
