"""Take turns on the processor, so that calls do not disturb each other's times, and long work lets visitors by."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Let one piece of work run at a time: a visitor's picture before the next batch of long work.

    Args:
        patience: seconds after which long work that visitors keep waiting takes its turn like one of them.
    """

    def __init__(self, patience: float = 5.0):
        self.patience = patience
        self._changed = threading.Condition()
        self._running = False
        self._visitors = 0  # who wait

    @contextmanager
    def of_visitor(self) -> Iterator[None]:
        """Wait until nothing runs."""
        with self._changed:
            self._visitors += 1
            self._changed.wait_for(lambda: not self._running)
            self._visitors -= 1
            self._running = True
        try:
            yield
        finally:
            self._end()

    @contextmanager
    def of_batch(self) -> Iterator[None]:
        """Wait until nothing runs and no visitor waits, or for `patience` seconds and until nothing runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running and not self._visitors, self.patience)
            self._changed.wait_for(lambda: not self._running)
            self._running = True
        try:
            yield
        finally:
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._running = False
            self._changed.notify_all()


TURNS = Turns()
