import os
from pathlib import Path

import pytest

from mobilediff.files import atomic_folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_folder_is_written_and_replaced_in_one_piece(tmp_path):
    folder = tmp_path / "deep" / "folder"
    for name in ("a", "b"):
        with atomic_folder(folder) as new:
            assert not any(new.iterdir())
            (new / name).touch()
            assert names(folder) == ({"a"} if name == "b" else set())
        assert names(folder) == {name} and names(folder.parent) == {"folder", f"folder/{name}"}


def test_after_an_error_the_old_folder_is_there_and_nothing_else(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as new:
        (new / "half").touch()
        1 / 0  # noqa: B018
    assert names(tmp_path) == {"folder", "folder/old"}

    replace = os.replace

    def refuse_the_new_one(source, target):
        if Path(source).parent.name == "new":
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse_the_new_one)
    with pytest.raises(OSError, match="no"), atomic_folder(folder):
        pass
    assert names(tmp_path) == {"folder", "folder/old"}


def test_a_link_is_followed(tmp_path):
    (tmp_path / "disk" / "folder").mkdir(parents=True)
    (tmp_path / "disk" / "folder" / "old").touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "folder")
    with atomic_folder(link) as new:
        (new / "new").touch()
    assert link.is_symlink() and names(tmp_path / "disk") == {"folder", "folder/new"}
