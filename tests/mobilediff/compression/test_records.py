"""Records: what is read back, and what is refused under which name."""

import pytest

from mobilediff.compression.records import Model, check_same_protocol, read_record
from mobilediff.files import write_json


class Pair(Model):
    first: int
    second: dict[str, int] = {}


def test_a_record_reads_back_and_its_first_wrong_field_is_named(tmp_path):
    file = tmp_path / "pair.json"
    write_json(file, {"first": 1, "second": {"a": 2}})
    assert read_record(file, Pair, "pair") == Pair(first=1, second={"a": 2})
    write_json(file, {"first": 1, "second": {"a": "two"}})
    with pytest.raises(ValueError, match=r"pair\.json is no pair: second\.a: Input should be a valid integer"):
        read_record(file, Pair, "pair")
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "nothing.json", Pair, "pair")


def test_the_first_difference_of_two_protocols_is_named():
    check_same_protocol("run.json", {"n": 1, "seed": 0}, {"n": 1})
    with pytest.raises(
        ValueError, match="run.json is of another run: seed was None and is now 3; take another output"
    ):
        check_same_protocol("run.json", {"n": 1}, {"n": 1, "seed": 3})
