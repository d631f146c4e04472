"""Run a command and report its errors."""

import sys
from collections.abc import Callable


def run_command(main: Callable[[], object]) -> None:
    """Call `main` and end the process with one line for an error of the user's, or for a run that diverged."""
    try:
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
