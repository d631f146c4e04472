"""What the app takes from its surroundings: folders, processors, a temporary folder, proxies."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import getproxies_environment

ROOT = Path(__file__).resolve().parents[2]
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
THIS_MACHINE = "localhost,127.0.0.1,::1"


def folder_of(variable: str, default: str) -> Path:
    """Return the folder that an environment variable names, by default one beside app.py; an empty variable is none.

    Raises:
        ValueError: it starts with ~, and there is no such home.
    """
    value = os.environ.get(variable)
    if not value:
        return ROOT / default
    try:
        return Path(value).expanduser().resolve()
    except RuntimeError as error:
        raise ValueError(f"{variable} is {value}; there is no such home, accepted is a folder without ~") from error


def available_cpus() -> int:
    """Count the processors that this process may use: of its affinity, and of its container's quota of time."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if CPU_QUOTA.is_file():
        quota, period = CPU_QUOTA.read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


@contextmanager
def prepared_for_gradio() -> Iterator[None]:
    """Give gradio what it needs to serve on this machine, for the block.

    A temporary folder of this process, as gradio's own belongs to the first user who served something; no proxy
    between the app and itself, since gradio asks its own address whether it is there; no calls home.
    """
    with tempfile.TemporaryDirectory(prefix="mobilediff-") as folder:
        os.environ.setdefault("GRADIO_TEMP_DIR", folder)
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        no_proxy = ",".join(filter(None, (getproxies_environment().get("no"), THIS_MACHINE)))
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = no_proxy
        yield
