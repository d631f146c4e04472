"""Prepare the process for the app: folders, a temporary folder, proxies, threads."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from urllib.request import getproxies_environment

from eval.samples.answers import DEFAULT_ANSWERS
from mobilediff.threads import let_threads_sleep

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results.json"
THIS_MACHINE = "localhost,127.0.0.1,::1"


def path_of(variable: str, default: str) -> Path:
    """Return the path that an environment variable names, by default one beside app.py; an empty variable is none.

    Raises:
        ValueError: it starts with ~, and there is no such home.
    """
    value = os.environ.get(variable)
    if not value:
        return ROOT / default
    try:
        return Path(value).expanduser().resolve()
    except RuntimeError as error:
        raise ValueError(f"{variable} is {value}; there is no such home, accepted is a path without ~") from error


def answers_file() -> Path | None:
    """Return the file that MOBILEDIFF_ANSWERS names, where answers of the arena are kept.

    None on a Space, whose disk does not last, unless the variable names a file on one that does.

    Raises:
        ValueError: as in `path_of`.
    """
    if os.environ.get("SPACE_ID") and not os.environ.get("MOBILEDIFF_ANSWERS"):
        return None
    return path_of("MOBILEDIFF_ANSWERS", DEFAULT_ANSWERS)


def whole_number_of(variable: str, default: int, low: int) -> int:
    """Return the whole number that an environment variable holds; an empty variable is none.

    Raises:
        ValueError: it holds something else, or less than `low`.
    """
    value = os.environ.get(variable) or str(default)
    if not (value.isascii() and value.isdecimal()) or int(value) < low:
        raise ValueError(f"{variable} is {value}; accepted is a whole number from {low}")
    return int(value)


def prepare() -> None:
    """Set the variables that gradio and torch read at import; a value of the environment stays, an empty one is none.

    A temporary folder of this process, as gradio's own belongs to the first user who served something; no proxy
    between the app and itself, since gradio asks its own address whether it is there; no calls home; no progress
    bars in the log; threads that sleep while they wait.
    """
    for name in [name for name, value in os.environ.items() if name.startswith("GRADIO_") and not value]:
        del os.environ[name]
    if "GRADIO_TEMP_DIR" in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = str(path_of("GRADIO_TEMP_DIR", ""))
    else:
        os.environ["GRADIO_TEMP_DIR"] = folder = tempfile.mkdtemp(prefix="mobilediff-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("TQDM_DISABLE", "1")
    no_proxy = ",".join(filter(None, (getproxies_environment().get("no"), THIS_MACHINE)))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = no_proxy
    let_threads_sleep()
