"""Turns on the processor: one at a time, visitors first, long work not for ever last."""

import threading
import time
from collections import deque

from mobilediff.demo.service.turns import Turns


def started(turn, name: str, order: deque) -> threading.Thread:
    """A thread that takes a turn and notes its name."""

    def take():
        with turn():
            order.append(name)

    thread = threading.Thread(target=take)
    thread.start()
    time.sleep(0.05)  # until it waits
    return thread


def test_visitors_go_before_batches_that_waited_longer():
    turns, order = Turns(patience=60), deque()
    with turns.of_visitor():
        waiting = [started(turns.of_batch, "batch", order)]
        waiting += [started(turns.of_visitor, f"visitor {index}", order) for index in range(3)]
        assert not order
    for thread in waiting:
        thread.join(10)
    assert order[-1] == "batch" and sorted(order)[1:] == ["visitor 0", "visitor 1", "visitor 2"]


def test_a_batch_whose_patience_ended_goes_although_visitors_wait():
    turns, order = Turns(patience=0.1), deque()
    with turns.of_visitor():
        waiting = [started(turns.of_batch, "batch", order)]
        time.sleep(0.2)
        assert not order  # whatever its patience, one runs at a time
    waiting[0].join(10)
    assert list(order) == ["batch"]


def test_a_turn_that_fails_is_over():
    turns = Turns()
    for turn in (turns.of_visitor, turns.of_batch):
        try:
            with turn():
                raise RuntimeError("no memory")
        except RuntimeError:
            pass
    with turns.of_visitor():
        pass
