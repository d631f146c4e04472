"""Run a command and report its errors."""

import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Call `main` and end the process with one line for an error of the user's."""
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
