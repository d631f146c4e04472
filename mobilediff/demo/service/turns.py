"""Take turns on the processor, so that calls do not disturb each other's times, and long work lets visitors by."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from eval.metrics.pauses import pausing

LOOK_AROUND = 0.2  # seconds between two looks whether waiting work was cancelled


class Cancelled(Exception):
    """Nobody waits for the work under way."""


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

    def of_visitor(self) -> AbstractContextManager[None]:
        """Wait until nothing runs."""
        return self._turn(self._wait_as_visitor)

    def of_batch(self, cancelled: threading.Event | None = None) -> AbstractContextManager[None]:
        """Wait until nothing runs and no visitor waits, or for `patience` seconds and until nothing runs.

        Raises:
            Cancelled: `cancelled` is set, or gets set meanwhile.
        """
        return self._turn(lambda: self._wait_as_batch(cancelled))

    @contextmanager
    def _turn(self, wait: Callable[[], None]) -> Iterator[None]:
        with self._changed:
            wait()
            self._running = True
        try:
            yield
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()

    def _wait_as_visitor(self) -> None:
        self._visitors += 1
        self._changed.wait_for(lambda: not self._running)
        self._visitors -= 1

    def _wait_as_batch(self, cancelled: threading.Event | None) -> None:
        impatient = time.monotonic() + self.patience
        while self._running or (self._visitors and time.monotonic() < impatient):
            _stop_if(cancelled)
            self._changed.wait(LOOK_AROUND)
        _stop_if(cancelled)

    @contextmanager
    def of_long_work(self, cancelled: threading.Event) -> Iterator[None]:
        """Hold a batch's turn, and hand it over at each pause of the work in the block.

        Raises:
            Cancelled: at a pause once `cancelled` is set.
        """
        with ExitStack() as turn:

            def hand_over() -> None:
                turn.close()
                turn.enter_context(self.of_batch(cancelled))

            hand_over()
            with pausing(hand_over):
                yield


def _stop_if(cancelled: threading.Event | None) -> None:
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


TURNS = Turns()
