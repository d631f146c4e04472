"""Exports stand beside checkpoints where they can be run, and are named where they cannot."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from mobilediff.demo.service.evaluation import check_request, evaluate
from mobilediff.demo.service.models import Models
from mobilediff.demo.service.targets import Targets
from mobilediff.ondevice.manifest import MANIFEST

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(checkpoints, tmp_path_factory) -> Models:
    folder = tmp_path_factory.mktemp("targets") / "checkpoints"
    shutil.copytree(checkpoints / "student-1step", folder / "student-1step")
    models = Models(folder)
    models.all()
    return models


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a", '{"format": "unheard"}', "exports/a is left out: its manifest cannot be read."),
        ("a", "{}", "exports/a is left out: its manifest cannot be read."),
        ("a", "[", "exports/a is left out: its manifest cannot be read."),
        ("a", "[]", "exports/a is left out: its manifest cannot be read."),
        ("a`b", "{}", "'exports/a`b' is left out: a name may not hold"),
    ],
)
def test_exports_that_cannot_be_run_are_named(models, tmp_path, name, content, problem):
    folder = tmp_path / "exports" / name
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(content, encoding="utf-8")
    (tmp_path / "exports" / "other").mkdir()
    targets = Targets(models, tmp_path / "exports")
    assert targets.names == ["student-1step"]
    assert len(targets.problems) == 1 and targets.problems[0].startswith(problem)
    assert str(tmp_path) not in targets.problems[0]


def test_no_folder_of_exports_is_no_problem(models, tmp_path):
    targets = Targets(models, tmp_path / "exports")
    assert targets.names == ["student-1step"] and not targets.problems


@pytest.fixture(scope="module")
def exports(models, tmp_path_factory) -> Path:
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="the extra ondevice is not installed: pip install '.[ondevice]'")
    from mobilediff.ondevice import export

    folder = tmp_path_factory.mktemp("exported") / "exports"
    checkpoint = models.folder / "student-1step"
    for name in ("onnx", "student-1step"):
        export.main(["--model", str(checkpoint), "--format", "onnx", "--output", str(folder / name)])
    return folder


def test_an_export_is_measured_as_its_checkpoint_is(models, exports):
    targets = Targets(models, exports)
    assert targets.names == ["student-1step", "exports/onnx", "exports/student-1step"]
    chosen = ["student-1step", "exports/onnx"]
    *_, last = evaluate(targets, {}, 2000, chosen, ["class_accuracy"], 200, 0, threading.Event())
    checkpoint, export = last.outcomes
    assert export.figures["Class accuracy"].value == pytest.approx(
        checkpoint.figures["Class accuracy"].value, abs=0.03
    )
    samples = export.results["onnx-accuracy.json"]["samples"]
    assert (samples["format"], samples["checkpoint"]) == ("onnx", "student-1step")
    assert "--model exports/onnx --n 200" in export.commands[0]


def test_an_export_of_the_name_of_a_checkpoint_is_not_timed_beside_it(models, exports):
    targets, chosen = Targets(models, exports), ["student-1step", "exports/student-1step"]
    with pytest.raises(ValueError, match="Two of the models are named student-1step"):
        check_request(targets, chosen, ["latency"], 200, 0, 2000)
    assert check_request(targets, chosen, ["class_accuracy"], 200, 0, 2000).names == chosen


def test_a_damaged_export_fails_alone(models, exports, tmp_path):
    shutil.copytree(exports, tmp_path / "exports")
    manifest = tmp_path / "exports" / "onnx" / MANIFEST
    content = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({"format": content["format"]}), encoding="utf-8")
    chosen = ["student-1step", "exports/onnx"]
    *_, last = evaluate(
        Targets(models, tmp_path / "exports"), {}, 2000, chosen, ["class_accuracy"], 200, 0, threading.Event()
    )
    found = {one.model: one for one in last.outcomes}
    assert found["exports/onnx"].sentences == [
        "Failed: exports/onnx cannot be loaded, and the log of the app says why."
    ]
    assert "Class accuracy" in found["student-1step"].figures
