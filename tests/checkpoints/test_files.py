import math
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mobilediff.files import atomic_folder, atomic_path, files_below, read_json, write_json


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


def test_files_behind_links_are_listed_and_a_link_without_end_is_refused(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    (elsewhere / "deep").mkdir(parents=True)
    folder.mkdir()
    for file in (elsewhere / "deep" / "a", elsewhere / "b", folder / "c"):
        file.touch()
    (folder / "part").symlink_to(elsewhere)
    (folder / "d").symlink_to(elsewhere / "b")
    listed = [path.relative_to(folder).as_posix() for path in files_below(folder)]
    assert listed == ["c", "d", "part/b", "part/deep/a"]
    (elsewhere / "deep" / "up").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="deep/up is a link to a folder that it lies in"):
        files_below(folder)


def test_a_file_is_written_through_its_link_and_keeps_its_permissions(tmp_path):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "result.json", tmp_path / "result.json"
    target.touch(mode=0o600)
    link.symlink_to(target)
    write_json(link, {"n": 1})
    assert link.is_symlink() and read_json(target) == {"n": 1}
    assert target.stat().st_mode & 0o777 == 0o600
    new = tmp_path / "new.json"
    (tmp_path / "dangling").symlink_to(new)
    write_json(tmp_path / "dangling", {"n": 2})
    assert (tmp_path / "dangling").is_symlink() and read_json(new) == {"n": 2}
    assert names(tmp_path / "disk") == {"result.json"}


@pytest.fixture
def umask():
    """Let a group read, and others not."""
    old = os.umask(0o027)
    yield
    os.umask(old)


def modes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in files}


def test_new_files_have_the_permissions_that_the_umask_leaves(tmp_path, umask):
    """safetensors writes a file for its owner alone."""
    with atomic_path(tmp_path / "table.safetensors") as temporary:
        save_file({"a": torch.zeros(1)}, temporary)
    with atomic_folder(tmp_path / "folder") as new:
        (new / "part").mkdir()
        save_file({"a": torch.zeros(1)}, new / "part" / "weights.safetensors")
        (new / "card.md").touch(0o600)
        (new / "link").symlink_to(tmp_path / "mine")
        (tmp_path / "mine").touch(0o600)
    assert modes(tmp_path) == {
        "table.safetensors": 0o640,
        "folder/part/weights.safetensors": 0o640,
        "folder/card.md": 0o640,
        "folder/link": 0o600,
        "mine": 0o600,
    }


def test_what_is_kept_of_a_folder_is_copied_as_it_is(tmp_path):
    folder = tmp_path / "folder"
    (folder / "hooks").mkdir(parents=True)
    (folder / "hooks" / "run").touch(0o700)
    (folder / "part").mkdir()
    (folder / "part" / "notes").symlink_to("nowhere")
    (folder / "part" / "old").touch()
    link = tmp_path / "link"
    link.symlink_to(folder)
    with atomic_folder(link, keep=[Path("hooks"), Path("part", "notes")]) as new:
        (new / "part").mkdir()
        (new / "part" / "new").touch()
    assert names(folder) == {"hooks", "hooks/run", "part", "part/notes", "part/new"}
    assert (folder / "part" / "notes").is_symlink()
    assert (folder / "hooks" / "run").stat().st_mode & 0o777 == 0o700


def test_a_file_is_no_folder_to_replace(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(NotADirectoryError, match="file is a file; accepted is a folder"),
        atomic_folder(tmp_path / "file"),
    ):
        pytest.fail("the block was entered")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", ["[" * 100_000, "1" * 5_000, "{", b"\xff"])
def test_what_is_no_json_is_named(tmp_path, content):
    file = tmp_path / "result.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match="result.json is not valid JSON"):
        read_json(file)


def test_what_is_no_file_to_write_is_refused_before_the_block(tmp_path):
    protected, pipe, device = tmp_path / "protected", tmp_path / "pipe", tmp_path / "device"
    protected.write_text("mine")
    protected.chmod(0o444)
    os.mkfifo(pipe)
    device.symlink_to(os.devnull)
    below_a_file = tmp_path / "protected" / "result.json"
    for path, named in (
        (protected, "write-protected"),
        (pipe, "a device or a pipe"),
        (device, "a device or a pipe"),
        (tmp_path, "is a folder; accepted is a file"),
        (below_a_file, "cannot be written"),
    ):
        before = names(tmp_path)
        with pytest.raises(OSError, match=named), atomic_path(path):
            pytest.fail("the block was entered")
        assert names(tmp_path) == before
    assert protected.read_text() == "mine" and stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("number", [math.nan, -math.inf])
def test_numbers_that_json_lacks_are_not_written(tmp_path, number):
    file = tmp_path / "result.json"
    write_json(file, {"n": 1})
    with pytest.raises(ValueError, match="result.json is not written, a number of it is NaN or infinite"):
        write_json(file, {"a": [{"b": number}]})
    assert read_json(file) == {"n": 1} and names(tmp_path) == {"result.json"}


def test_a_link_without_end_is_refused_before_the_block(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for atomic in (atomic_path, atomic_folder):
        with pytest.raises(OSError, match="loop is a link that leads to itself"), atomic(tmp_path / "loop"):
            pytest.fail("the block was entered")


def test_a_mount_point_is_refused_before_the_block(tmp_path, monkeypatch):
    folder = tmp_path / "volume"
    folder.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    with pytest.raises(OSError, match="volume is a mount point"), atomic_folder(folder):
        pytest.fail("the block was entered")
    with atomic_folder(folder / "inside") as new:
        (new / "a").touch()
    assert names(tmp_path) == {"volume", "volume/inside", "volume/inside/a"}
