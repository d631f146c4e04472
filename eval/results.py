"""The file of results that `eval.report` writes, held to one schema when it is read and when it is written."""

from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from eval.protocol import read_json, write_json

SCHEMA_FILE = Path(__file__).with_name("results.schema.json")
SCHEMA = 2  # of the records; raised when their shape changes


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(read_json(SCHEMA_FILE))


def check_results(results: dict, name: str) -> dict:
    """The results, if they are what the schema says.

    Args:
        name: what an error calls them.

    Raises:
        ValueError: they are not; the error names the place.
    """
    if error := next(iter(sorted(_validator().iter_errors(results), key=lambda error: list(error.path))), None):
        place = "/".join(map(str, error.path)) or "the file"
        raise ValueError(f"{name} is no file of eval.report: {place}: {error.message[:200]}")
    return results


def read_results(file: str | Path) -> dict:
    """Read and check; errors as in `read_json` and `check_results`."""
    return check_results(read_json(file), str(file))


def write_results(file: str | Path, results: dict) -> None:
    """Check and write in one piece; errors as in `check_results`."""
    write_json(file, check_results(results, str(file)))
