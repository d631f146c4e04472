"""The file of answers: what is kept is read, several write at a time, and what is something else stays as it is."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from eval.samples.answers import Answer, check_answers, keep_answer, now, read_answers
from mobilediff.demo.environment import ROOT

ANSWER = Answer(
    "teacher", "a" * 64, "student", "b" * 64, "a fire truck", 2**32 - 1, "left", "2030-01-01T00:00:00+00:00"
)
WRITE = """
import sys
from pathlib import Path
from eval.samples.answers import Answer, keep_answer
for seed in range(10):
    keep_answer(Path(sys.argv[1]), Answer("a", "a" * 64, "b", "b" * 64, "a cat", seed, "same", sys.argv[2]))
"""


def database(file: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return file


def test_answers_are_read_in_their_order(tmp_path):
    file = tmp_path / "new folder" / "100 % #1?.sqlite"
    answers = [ANSWER, replace(ANSWER, preferred="same", prompt="it's; DROP TABLE answers"), ANSWER]
    check_answers(file)
    assert not file.exists()
    for one in answers:
        keep_answer(file, one)
    check_answers(file)
    assert read_answers(file) == answers
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_time_is_utc_and_of_seconds():
    assert len(now()) == len(ANSWER.time) and now().endswith("+00:00")


def test_threads_lose_no_answer(tmp_path):
    file = tmp_path / "arena.sqlite"

    def write() -> None:
        for _ in range(10):
            keep_answer(file, ANSWER)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_answers(file)) == 80


def test_processes_that_all_find_no_file_lose_no_answer(tmp_path):
    file = tmp_path / "arena.sqlite"
    command = [sys.executable, "-c", WRITE, str(file)]
    processes = [subprocess.Popen([*command, str(one)], cwd=ROOT, stderr=subprocess.PIPE) for one in range(4)]
    assert [process.communicate()[1] for process in processes] == [b""] * 4
    assert sorted((one.time, one.seed) for one in read_answers(file)) == [
        (str(i), j) for i in range(4) for j in range(10)
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.write_text("model,answer\n" * 1000), "is no file of answers: file is not a database"),
        (lambda file: database(file, "CREATE TABLE notes (text)"), "is a database of something else; accepted is"),
        (lambda file: database(file, "PRAGMA application_id = 7"), "is a database of something else; accepted is"),
        (
            lambda file: (keep_answer(file, ANSWER), database(file, "PRAGMA user_version = 2")),
            "is of version 2; accepted is a file of answers of version 1",
        ),
    ],
)
def test_another_file_is_refused_in_a_line_and_kept(tmp_path, make, message):
    file = tmp_path / "other"
    make(file)
    before = file.read_bytes()
    for use in (check_answers, read_answers, lambda file: keep_answer(file, ANSWER)):
        with pytest.raises(ValueError, match=message) as error:
            use(file)
        assert "\n" not in str(error.value)
    assert file.read_bytes() == before


def test_an_answer_of_another_kind_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match="is no file of answers: CHECK constraint failed"):
        keep_answer(tmp_path / "arena.sqlite", replace(ANSWER, preferred="skip"))
    with pytest.raises(ValueError, match="holds no answers yet"):
        read_answers(tmp_path / "arena.sqlite")


def test_what_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no file; accepted is one that the app keeps answers in"):
        read_answers(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError, match="is a folder; accepted is a file"):
        check_answers(tmp_path)
    with pytest.raises(OSError, match="cannot be read or written: unable to open"):
        keep_answer(tmp_path, ANSWER)
