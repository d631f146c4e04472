"""Validate, read and resume the JSON records of compression's commands."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mobilediff.files import read_json


class Model(BaseModel):
    """A frozen model without further keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ModelT = TypeVar("ModelT", bound=Model)


def read_record(file: str | Path, record_class: type[ModelT], kind: str) -> ModelT:
    """Read a record that a command wrote.

    Args:
        file: of the record.
        record_class: of the record.
        kind: of the record, in words, for the error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such record; names it and the first wrong field.
    """
    content = read_json(file)
    try:
        return record_class.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{file} is no {kind}: {place}: {first['msg']}") from error


def check_same_protocol(file: str | Path, before: dict, now: dict) -> None:
    """Refuse to go on with a record that was begun under another protocol.

    Args:
        file: of the record, for the error.
        before: its protocol.
        now: the protocol of this run.

    Raises:
        ValueError: names the first difference.
    """
    for name, value in now.items():
        if before.get(name) != value:
            raise ValueError(
                f"{file} is of another run: {name} was {before.get(name)!r} and is now {value!r}; take another "
                "output, or the same options"
            )
