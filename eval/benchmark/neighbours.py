"""Keep processors busy beside a measurement, as other programs of a shared machine do."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# It says that it runs, and ends with the pipe of its standard input: with the measuring process, however that ends.
BUSY = """
import os, sys, threading
threading.Thread(target=lambda: os._exit(len(sys.stdin.read()))).start()
print(flush=True)
while True:
    pass
"""


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """Run `count` processes that use a processor each as long as the block runs."""
    with ExitStack() as stack:
        for _ in range(count):
            # a session of its own, as Ctrl-C is for the measurement
            started = subprocess.Popen(
                [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            process = stack.enter_context(started)
            stack.callback(process.kill)
            process.stdout.readline()  # pyright: ignore[reportOptionalMemberAccess] - a pipe
        yield
