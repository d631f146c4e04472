"""Formats whose libraries are there or not."""

import sys
from typing import get_args

import pytest

from mobilediff.ondevice import export, formats
from mobilediff.ondevice.manifest import Precision


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
    try:
        accepted = formats.load_format(name).PRECISIONS
    except ValueError as error:
        pytest.skip(str(error))
    assert accepted[0] == "fp32"
    for precision in set(get_args(Precision)) - set(accepted):
        command = ["--model", "nowhere", "--format", name, "--precision", precision, "--output", str(tmp_path / "out")]
        with pytest.raises(ValueError, match=f"precision is '{precision}'; format {name} has fp32"):
            export.main(command)
