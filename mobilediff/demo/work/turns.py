"""Take turns on the processor, so that calls do not disturb each other's times, and long work lets visitors by."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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
    def of_batch(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Wait until nothing runs and no visitor waits, or for `patience` seconds and until nothing runs.

        Raises:
            Cancelled: `cancelled` is set, or gets set meanwhile.
        """
        impatient = time.monotonic() + self.patience
        with self._changed:
            while not (stopped := cancelled is not None and cancelled.is_set()):
                if not self._running and (not self._visitors or time.monotonic() >= impatient):
                    break
                self._changed.wait(LOOK_AROUND)
            if stopped:
                raise Cancelled
            self._running = True
        try:
            yield
        finally:
            self._end()

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

    def _end(self) -> None:
        with self._changed:
            self._running = False
            self._changed.notify_all()


TURNS = Turns()
