"""Protocol of a measurement: the hash of a checkpoint follows links, and every kind of device has a description."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from eval.protocol import device_description, folder_sha256


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(b"one")
    return folder


def test_the_hash_is_that_of_what_links_lead_to(checkpoint, tmp_path):
    expected = folder_sha256(checkpoint)
    shutil.move(checkpoint / "unet", tmp_path / "unet")
    assert folder_sha256(checkpoint) != expected
    (checkpoint / "unet").symlink_to(tmp_path / "unet")
    assert folder_sha256(checkpoint) == expected
    (tmp_path / "unet" / "weights.safetensors").write_bytes(b"two")
    assert folder_sha256(checkpoint) != expected


def test_the_hash_is_that_of_a_linked_file_and_of_a_linked_checkpoint(checkpoint, tmp_path):
    expected, weights = folder_sha256(checkpoint), checkpoint / "unet" / "weights.safetensors"
    shutil.move(weights, tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")  # as the hub's cache does
    (tmp_path / "link").symlink_to(checkpoint)
    assert folder_sha256(checkpoint) == folder_sha256(tmp_path / "link") == expected


@pytest.mark.parametrize(
    ("kind", "module"),
    [("mps", SimpleNamespace()), ("xpu", SimpleNamespace(get_device_name=lambda device: f"Arc {device.index}"))],
)
def test_a_device_has_a_name_whether_its_module_tells_one_or_not(kind, module, monkeypatch):
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    described = device_description(f"{kind}:1")
    assert described["device"] == kind
    assert described["device_name"] == ("Arc 1" if kind == "xpu" else device_description("cpu")["device_name"])
