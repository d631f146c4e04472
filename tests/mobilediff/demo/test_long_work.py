"""Long work lets visitors by at its pauses, and ends there once nobody waits for it."""

import threading
import time

import pytest

from eval.metrics.pauses import pause
from mobilediff.demo.service.turns import Cancelled, Turns


def test_a_visitor_goes_first_at_a_pause():
    turns, order, waiting = Turns(), [], threading.Event()

    def visit():
        waiting.set()
        with turns.of_visitor():
            order.append("visitor")

    visitor = threading.Thread(target=visit)
    with turns.of_long_work(threading.Event()):
        visitor.start()
        waiting.wait()
        while not turns._visitors:
            time.sleep(0.001)
        order.append("first piece")
        pause()
        order.append("second piece")
    visitor.join()
    assert order == ["first piece", "visitor", "second piece"]


def test_cancelled_work_ends_at_its_next_pause_and_gives_its_turn_back():
    turns, cancelled = Turns(), threading.Event()
    with pytest.raises(Cancelled), turns.of_long_work(cancelled):
        pause()
        cancelled.set()
        pause()
        pytest.fail("went on")
    with turns.of_visitor():
        pass


def test_cancelled_work_stops_waiting_for_its_turn():
    turns, cancelled = Turns(), threading.Event()
    with turns.of_visitor():
        threading.Timer(0.1, cancelled.set).start()
        start = time.monotonic()
        with pytest.raises(Cancelled), turns.of_batch(cancelled):
            pytest.fail("had a turn")
    assert time.monotonic() - start < 1
