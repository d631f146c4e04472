"""Busy neighbours use processors during the block, and end with it and with the process that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.benchmark.neighbours import busy_neighbours

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def children() -> dict[int, float]:
    """The children of this process, with the seconds that each has used a processor."""
    used = {}
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        used[int(pid)] = int(fields[11]) / os.sysconf("SC_CLK_TCK")
    return used


def wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited in vain")


@pytest.mark.parametrize("count", [0, 2])
def test_neighbours_are_busy_as_long_as_the_block_runs(count):
    before = set(children())
    with pytest.raises(OSError, match="in the block"), busy_neighbours(count):
        neighbours = set(children()) - before
        assert len(neighbours) == count
        start = {pid: children()[pid] for pid in neighbours}
        wait_for(lambda: all(children()[pid] > start[pid] + 0.1 for pid in neighbours))
        raise OSError("in the block")
    assert set(children()) == before


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_neighbours_end_with_the_measuring_process(ending, tmp_path):
    code = """
from pathlib import Path
import os, time
from eval.benchmark.neighbours import busy_neighbours
with busy_neighbours(2):
    print(*Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(), flush=True)
    time.sleep(60)
"""
    with open(tmp_path / "errors", "w+") as errors:
        measuring = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        neighbours = measuring.stdout.readline().split()
        assert len(neighbours) == 2
        measuring.send_signal(ending)
        measuring.communicate(timeout=30)
        wait_for(lambda: not any(running(pid) for pid in neighbours))
        errors.seek(0)
        assert errors.read().count("Traceback") == (ending == signal.SIGINT)  # its own, none of a neighbour


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
