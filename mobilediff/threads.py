"""Count the processors for threads, and set how OpenMP's threads wait, before torch is imported."""

import os
import sys
from pathlib import Path

WAIT_POLICY = "OMP_WAIT_POLICY"
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
MAX_THREADS = 1024  # runtimes start as many as they are told, and a machine can choke on them


def check_threads(threads: int) -> None:
    """Refuse a number of threads that no runtime should be given.

    Raises:
        ValueError: it is below 1 or over `MAX_THREADS`.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads is {threads}; accepted is 1 to {MAX_THREADS}")


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep between two pieces of work, unless the environment says how they wait.

    Threads that spin keep the processor from others: beside busy neighbours a piece of work then waits until its
    threads are all given a turn. OpenMP reads the variable once, when torch is imported; after that nothing is set,
    so that the variable stays the one that OpenMP read. An empty variable leaves OpenMP its own way.
    """
    if "torch" in sys.modules:
        return
    if os.environ.setdefault(WAIT_POLICY, "PASSIVE") == "":
        del os.environ[WAIT_POLICY]


def wait_policy() -> str:
    """Return how OpenMP's threads wait, "PASSIVE", "ACTIVE", or "unset" for OpenMP's own way."""
    return os.environ[WAIT_POLICY].upper() if WAIT_POLICY in os.environ else "unset"


def available_cpus() -> int:
    """Count the processors that this process may use: of its affinity, and of its container's quota of time."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if CPU_QUOTA.is_file():
        quota, period = CPU_QUOTA.read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus
