"""Pause a long computation between its pieces, so that a program can run something else or stop it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_AT_PAUSE: ContextVar[Callable[[], object] | None] = ContextVar("at_pause", default=None)


def pause() -> None:
    """Call the function of the `pausing` block around, if there is one."""
    if call := _AT_PAUSE.get():
        call()


def pause_before(modules: Iterable[torch.nn.Module]) -> None:
    """Pause before each call of the modules."""
    for module in modules:
        module.register_forward_pre_hook(lambda *_: pause())


@contextmanager
def pausing(call: Callable[[], object]) -> Iterator[None]:
    """Call `call` at each pause of the block, in this thread alone; an error that it raises ends the computation."""
    token = _AT_PAUSE.set(call)
    try:
        yield
    finally:
        _AT_PAUSE.reset(token)
