"""Formats whose libraries are there or not."""

import sys

import pytest

from mobilediff.ondevice import formats


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
