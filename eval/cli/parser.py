"""The parser of a command."""

import argparse


def command_parser(command: str, docstring: str | None) -> argparse.ArgumentParser:
    """Make the parser of a command, described by the first line of its module's docstring.

    Args:
        command: "eval." and the module's name.
        docstring: of that module; None under `python -OO`.
    """
    return argparse.ArgumentParser(
        prog=f"python -m {command}", description=docstring.splitlines()[0] if docstring else None
    )
