"""Parts between markers: found, refused, replaced."""

import pytest

from eval.report import PARTS
from eval.reporting.insertion import insert_parts, marked_parts, markers, part_of
from mobilediff.model_card import RESULTS_END, RESULTS_START

START, END = markers("results")


def test_cards_have_the_same_markers():
    assert markers("results") == (RESULTS_START, RESULTS_END)


def test_parts_are_replaced_and_nothing_else(tmp_path):
    file = tmp_path / "README.md"
    claim_start, claim_end = markers("claim")
    file.write_text(f"a\n{claim_start}\nold\n{claim_end}\nb\n{START}\n{END}\nc")
    assert marked_parts(file, tuple(PARTS)) == ["claim", "results"]
    insert_parts(file, {"results": "table", "claim": "sentence"})
    assert file.read_text() == f"a\n{claim_start}\nsentence\n{claim_end}\nb\n{START}\ntable\n{END}\nc"
    assert part_of(file, "claim") == "sentence"


@pytest.mark.parametrize("text", ["no markers", START, f"{END}\n{START}", f"{START}\n{START}\n{END}"])
def test_broken_markers_are_refused_and_the_file_stays(tmp_path, text):
    file = tmp_path / "README.md"
    file.write_text(text)
    with pytest.raises(ValueError, match="README.md needs"):
        marked_parts(file, tuple(PARTS))
    with pytest.raises(ValueError, match="README.md needs"):
        insert_parts(file, {"results": "table"})
    assert file.read_text() == text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="README.md does not exist"):
        marked_parts(tmp_path / "README.md", ("results",))
