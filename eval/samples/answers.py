"""Keep answers on which of two models drew the better picture, in one table of a SQLite file.

Several processes may write one file at a time. It holds nothing about who answered.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from mobilediff.files import writable_file

APPLICATION_ID, VERSION = 0x6D64616E, 1  # in the head of the file: "mdan", and of the table's columns
DEFAULT_ANSWERS = "outputs/arena.sqlite"
PREFERENCES = ("left", "right", "same")
PATIENCE = 30.0  # seconds that a writer waits for others


@dataclass(frozen=True)
class Answer:
    """Hold one answer.

    Attributes:
        left, right: names of the models.
        left_sha256, right_sha256: of their weights.
        prompt, seed: of both pictures.
        preferred: of `PREFERENCES`.
        time: in UTC, ISO 8601.
    """

    left: str
    left_sha256: str
    right: str
    right_sha256: str
    prompt: str
    seed: int
    preferred: str
    time: str


COLUMNS = [field.name for field in fields(Answer)]
TABLE = f"""CREATE TABLE answers (
    {", ".join(f"{name} {'INTEGER' if name == 'seed' else 'TEXT'} NOT NULL" for name in COLUMNS)},
    CHECK (preferred IN {PREFERENCES}))"""

# in one statement, since another process may be making the file
HEAD = """SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
    FROM pragma_application_id, pragma_user_version"""


def now() -> str:
    """Return the time of an answer."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _opened(file: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Open a file in a mode of SQLite's addresses, and name it in errors."""
    try:
        address = f"{file.resolve().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=PATIENCE, isolation_level=None)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        raise OSError(f"{file} cannot be read or written: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{file} is no file of answers: {error}") from error


def _is_new(connection: sqlite3.Connection, file: Path) -> bool:
    """Tell whether a database is empty, and refuse one of something else or of another version."""
    ((identity, version, tables),) = connection.execute(HEAD)
    if (identity, version, tables) == (0, 0, 0):
        return True
    if identity != APPLICATION_ID:
        raise ValueError(f"{file} is a database of something else; accepted is a file of answers")
    if version != VERSION:
        raise ValueError(f"{file} is of version {version}; accepted is a file of answers of version {VERSION}")
    return False


def check_answers(file: Path) -> None:
    """Refuse a file that answers cannot be kept in, and make none.

    Raises:
        OSError: it cannot be written.
        ValueError: it is no database, or one of something else or of another version.
    """
    writable_file(file)
    if file.exists():
        with _opened(file, "ro") as connection:
            _is_new(connection, file)


def keep_answer(file: Path, answer: Answer) -> None:
    """Add an answer to a file, which is made where it is missing; errors as in `check_answers`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with _opened(file, "rwc") as connection:
        if _is_new(connection, file):
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        if _is_new(connection, file):  # still, now that no other process writes
            connection.execute(TABLE)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(f"INSERT INTO answers VALUES ({', '.join('?' * len(COLUMNS))})", astuple(answer))
        connection.execute("COMMIT")


def read_answers(file: Path) -> list[Answer]:
    """Read all answers, in the order in which they came.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is no database, one of something else or of another version, or holds no answers.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file; accepted is one that the app keeps answers in")
    with _opened(file, "ro") as connection:
        rows = [] if _is_new(connection, file) else connection.execute(f"SELECT {', '.join(COLUMNS)} FROM answers")
        answers = [Answer(*row) for row in rows]
    if not answers:
        raise ValueError(f"{file} holds no answers yet")
    return answers
