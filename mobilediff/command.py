"""Run a command and report its errors."""

import sys
from collections.abc import Callable

INTERRUPTED = 130  # 128 + SIGINT, as shells count


def run_command(main: Callable[[], object]) -> None:
    """Call `main` and end the process with one line for an error of the user's, a diverged run or Ctrl-C."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
