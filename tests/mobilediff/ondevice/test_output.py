"""The folder that an export may replace."""

import json
import os

import pytest

from mobilediff.ondevice.folder import check_output


def exported_folder(folder):
    """Write the names of an export."""
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("image.onnx", "nouns.safetensors", "README.md"):
        (folder / name).touch()
    (folder / "manifest.json").write_text(json.dumps({"graphs": [{"path": "image.onnx"}]}))
    return folder


def test_an_export_a_new_and_an_empty_folder_are_taken(tmp_path):
    check_output(exported_folder(tmp_path / "export"))
    check_output(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty")


@pytest.mark.parametrize("name", [".git", "notes.txt", "older.onnx"])
def test_what_lies_beside_an_export_is_not_lost(tmp_path, name):
    (exported_folder(tmp_path / "export") / name).touch()
    with pytest.raises(FileExistsError, match=f"export holds {name}, which is of no exported folder"):
        check_output(tmp_path / "export")
    assert (tmp_path / "export" / name).exists()


@pytest.mark.parametrize("manifest", ['{"complete": true, "n": 3}', "[]", "{"])
def test_samples_and_other_manifests_are_no_export(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(FileExistsError, match="holds manifest.json, which is of no exported folder"):
        check_output(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    os.symlink(tmp_path / "file", tmp_path / "link")
    for name in ("file", "link"):
        with pytest.raises(NotADirectoryError, match=f"{name} is a file; accepted is a folder"):
            check_output(tmp_path / name)
