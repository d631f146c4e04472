"""Errors of a command."""

import sys
from collections.abc import Callable

INTERRUPTED = 130  # 128 + SIGINT, as shells count


def run(main: Callable[[], None]) -> None:
    """Call `main` and end the process with one line for an error of the user's, or for Ctrl-C."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the samples that are drawn", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
