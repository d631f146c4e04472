"""Tables of control, inpainting and LoRAs: of equally many images, and as the pages hold them."""

import json
from pathlib import Path

import pytest

from eval import downstream
from eval.reporting.downstream import PARTS, read_downstream
from eval.reporting.insertion import marked_parts, part_of

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "docs/downstream").glob("*.json"))


@pytest.mark.parametrize("page", downstream.PAGES)
def test_the_pages_hold_the_tables_of_the_results(page):
    results = read_downstream(FILES)
    for part in marked_parts(ROOT / page, tuple(PARTS)):
        assert part_of(ROOT / page, part) == PARTS[part](results), f"{page}: run python -m eval.downstream"


def test_results_of_other_numbers_of_images_make_no_table(tmp_path):
    contents = [json.loads(file.read_text()) for file in FILES]
    for index, content in enumerate(content for content in contents if content["command"] == "eval.lora"):
        (tmp_path / f"{index}.json").write_text(json.dumps(content | {"n": content["n"] + index}))
    with pytest.raises(ValueError, match=r"results of LoraResult with n of \[\d+, .*; accepted are one or more"):
        PARTS["lora"](read_downstream(sorted(tmp_path.iterdir())))


def test_a_missing_kind_is_named():
    with pytest.raises(ValueError, match=r"results of ControlResult with n of \[\]; accepted"):
        PARTS["control"]({})


@pytest.mark.parametrize("content", [{"command": "eval.fid"}, []])
def test_other_files_are_refused_by_name(tmp_path, content):
    file = tmp_path / "other.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="other.json: its command is .*; accepted are results of eval.control"):
        read_downstream([file])


def test_the_command_writes_the_parts_that_a_page_has(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- lora:start -->\nold\n<!-- lora:end -->\n")
    downstream.main([*map(str, FILES), "--pages", str(page)])
    assert capsys.readouterr().out.split() == [str(page)]
    assert part_of(page, "lora") == PARTS["lora"](read_downstream(FILES))
