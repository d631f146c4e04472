"""A refused input ends a command with one line; an error of the program keeps its traceback."""

import pytest

from mobilediff.command import run_command


@pytest.mark.parametrize(
    "error",
    [
        ValueError("n is 0"),
        FileNotFoundError("no folder"),
        PermissionError("no access"),
        FloatingPointError("a weight is not finite"),
    ],
)
def test_errors_of_the_user_and_diverged_runs_are_one_line(error):
    def main():
        raise error

    with pytest.raises(SystemExit, match=f"error: {error}"):
        run_command(main)


def test_errors_of_the_program_are_not_hidden():
    def main():
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        run_command(main)
