"""What is written of measurements, the report's file and a command's result, held to one schema."""

from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from eval.protocol import read_json, write_json

SCHEMA_FILE = Path(__file__).with_name("results.schema.json")
SCHEMA = 4  # of records and results; raised when their shape changes


@cache
def _validator(definition: str) -> Draft202012Validator:
    schema = read_json(SCHEMA_FILE)
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]})


def _check(content: dict, definition: str, refused: str) -> dict:
    errors = sorted(_validator(definition).iter_errors(content), key=lambda error: list(error.path))
    if errors:
        place = "/".join(map(str, errors[0].path)) or "the file"
        raise ValueError(f"{refused}: {place}: {errors[0].message[:200]}")
    return content


def check_results(results: dict, name: str) -> dict:
    """The report's results, if they are what the schema says.

    Args:
        name: what an error calls them.

    Raises:
        ValueError: they are not; the error names the place.
    """
    return _check(results, "report", f"{name} is no file of eval.report")


def read_results(file: str | Path) -> dict:
    """Read and check; errors as in `read_json` and `check_results`."""
    return check_results(read_json(file), str(file))


def write_results(file: str | Path, results: dict) -> None:
    """Check and write in one piece; errors as in `check_results`."""
    write_json(file, check_results(results, str(file)))


def stated_result(command: str, result: dict) -> dict:
    """One command's result with the number of the schema and the command's name, if it is what the schema says.

    Raises:
        ValueError: it is not; the error names the place.
    """
    return _check({"schema": SCHEMA, "command": command} | result, "result", f"{command} has no such result")
