"""Parse the arguments of a command, run it and report its errors."""

import argparse
import sys
from collections.abc import Callable

INTERRUPTED = 130  # 128 + SIGINT, as shells count


def command_parser(prog: str, docstring: str | None) -> argparse.ArgumentParser:
    """Make the parser of a command, described by the first line of its module's docstring.

    Args:
        prog: how the command is called, such as "python -m eval.fid".
        docstring: of the module; None under `python -OO`.
    """
    return argparse.ArgumentParser(prog=prog, description=docstring.splitlines()[0] if docstring else None)


def check_least(args: argparse.Namespace, **least: int) -> None:
    """Refuse options that are too small.

    Args:
        args: parsed.
        least: the smallest value accepted, by option.

    Raises:
        ValueError: names the first one that is smaller.
    """
    for name, smallest in least.items():
        if getattr(args, name) < smallest:
            raise ValueError(f"{name} is {getattr(args, name)}; accepted is {smallest} or more")


def run_command(main: Callable[[], object]) -> None:
    """Call `main` and end the process with one line for an error of the user's, a diverged run or Ctrl-C."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
