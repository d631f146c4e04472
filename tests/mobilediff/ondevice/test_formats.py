"""Formats whose libraries are there or not."""

import sys
from types import ModuleType
from typing import get_args

import pytest
from transformers import CLIPTextConfig

from mobilediff.ondevice import export, folder, formats
from mobilediff.ondevice.manifest import Precision
from tests import tiny


def _load(name: str) -> ModuleType:
    """Import a format's module, or skip the test where a library of it is not installed."""
    try:
        return formats.load_format(name)
    except ValueError as error:
        pytest.skip(str(error))


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "mobilediff.ondevice.formats.onnx_format", raising=False)
    with pytest.raises(ValueError, match=r"format onnx needs onnx, .*\[ondevice\]"):
        formats.load_format("onnx")


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="format is 'coreml'; accepted are onnx"):
        formats.load_format("coreml")


def test_a_precision_that_the_format_lacks_is_refused(monkeypatch):
    module = type(sys)("stand-in")
    module.PRECISIONS = ("fp32",)
    monkeypatch.setattr(formats, "load_format", lambda name: module)
    with pytest.raises(ValueError, match="precision is 'int8'; format onnx has fp32"):
        formats.check_precision("onnx", "int8")


@pytest.mark.parametrize("name", formats.FORMATS)
def test_an_export_in_a_precision_that_the_format_lacks_is_refused_before_any_work(name, tmp_path):
    accepted = _load(name).PRECISIONS
    assert accepted[0] == "fp32"
    for precision in set(get_args(Precision)) - set(accepted):
        command = ["--model", "nowhere", "--format", name, "--precision", precision, "--output", str(tmp_path / "out")]
        with pytest.raises(ValueError, match=f"precision is '{precision}'; format {name} has fp32"):
            export.main(command)


@pytest.mark.parametrize(
    ("width", "feed_forward", "message"),
    [
        (48, 64, "hidden_size of the text encoder is 48; format litert in int8 takes multiples of 32"),
        (64, 80, "intermediate_size of the text encoder is 80; format litert in int8 takes multiples of 32"),
    ],
)
def test_widths_of_text_that_are_no_whole_blocks_are_refused(width, feed_forward, message):
    config = CLIPTextConfig(hidden_size=width, intermediate_size=feed_forward)
    _load("litert")
    for precision in ("fp32", "fp16"):
        formats.check_text_widths("litert", precision, config)
    formats.check_text_widths("litert", "int8", CLIPTextConfig(hidden_size=64, intermediate_size=96))
    with pytest.raises(ValueError, match=message):
        formats.check_text_widths("litert", "int8", config)


def test_an_export_of_such_widths_is_refused_before_any_work(tmp_path, monkeypatch):
    _load("litert")
    monkeypatch.setattr(folder, "build_graphs", lambda *_: pytest.fail("the graphs were built"))
    pipeline = tiny.tiny_pipeline("student-1step")
    with pytest.raises(
        ValueError, match=f"hidden_size of the text encoder is {tiny.HIDDEN_SIZE}; format litert in int8"
    ):
        folder.write_exported(pipeline, "tiny", "0" * 64, tmp_path / "out", "litert", "int8")
    assert not list(tmp_path.iterdir())
