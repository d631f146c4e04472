"""Models are measured piece by piece with the very figures of the commands, or refused before any work."""

import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import eval.accuracy
import eval.clip_score
import eval.fid
import eval.latency
import eval.quality
from eval.schema import check_result
from mobilediff.demo.service import evaluation
from mobilediff.demo.service.evaluation import METRICS, check_request, evaluate
from mobilediff.demo.service.models import Models
from mobilediff.demo.service.targets import PIECE_MACS, Targets, batch_size_of
from mobilediff.demo.service.turns import TURNS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
COMMANDS = {module.__name__: module.main for module in (eval.accuracy, eval.clip_score, eval.quality, eval.latency)}
NOT_TIMED = [metric for metric in METRICS if metric != "latency"]


@pytest.fixture(scope="module")
def folder(checkpoints, tmp_path_factory) -> Path:
    """Two checkpoints."""
    folder = tmp_path_factory.mktemp("evaluated") / "checkpoints"
    for name in ("student-1step", "teacher"):
        shutil.copytree(checkpoints / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def targets(folder) -> Targets:
    models = Models(folder)
    models.all()
    return Targets(models, folder.parent / "exports")


def run(targets, names=("student-1step",), metrics=("class_accuracy",), n=200, seed=0, cancelled=None, records=None):
    cancelled = cancelled or threading.Event()
    return evaluate(targets, records or {}, 2000, list(names), list(metrics), n, seed, cancelled)


@pytest.fixture(scope="module")
def measured(targets) -> list[evaluation.State]:
    """The states of an evaluation of all metrics but latency, with all figures on the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "SECONDS_BETWEEN_FIGURES", 0.0)
        patch.setattr(evaluation, "SECONDS_BETWEEN_NEWEST", 0.0)
        return list(run(targets, metrics=NOT_TIMED, n=520, seed=3))


def test_progress_and_figures_so_far_come_on_the_way(measured):
    fractions = [state.fraction for state in measured]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert any("520 images, about" in state.text for state in measured)
    sizes = [{one.n for one in state.figures if one.name == "Class accuracy"} for state in measured]
    assert {250} in sizes and {500} in sizes and sizes[-1] == {520}
    distances = {one.n: one for state in measured for one in state.figures if one.name == "Fréchet distance"}
    assert list(distances) == [500, 520]  # 250 samples are too few for 256 features
    assert all(one.low < one.high for one in distances.values())
    assert {one.name for one in measured[-1].figures} == {
        name for metric in NOT_TIMED for name in evaluation.FIGURES[metric].values()
    }


def test_the_newest_whole_rounds_of_the_classes_come_on_the_way(measured):
    newest = [state.newest for state in measured if state.newest is not None]
    assert len(newest) > 10 and {len(images) % 10 for images in newest} == {0}
    assert len(newest[-1]) == 40
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(newest[:5]))


def lines(measured) -> dict[str, list[str]]:
    """The words of each command of an outcome by the file that it writes, without the variables before it."""
    words = [shlex.split(command) for command in measured[-1].outcomes[0].commands]
    return {line[-1]: line[line.index("python") :] for line in words}


@pytest.mark.parametrize("kind", ["accuracy-noun", "clip_score", "quality"])
def test_commands_repeat_the_figures(measured, folder, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOBILEDIFF_DATA", raising=False)
    (tmp_path / "checkpoints").symlink_to(folder)
    file = f"student-1step-{kind}.json"
    _, _, module, *arguments = lines(measured)[file]
    COMMANDS[module](arguments)
    assert json.loads(Path(file).read_text(encoding="utf-8")) == measured[-1].outcomes[0].results[file]


def test_the_line_in_a_shell_repeats_the_figures(measured, folder, tmp_path):
    (tmp_path / "checkpoints").symlink_to(folder)
    line = next(line for line in measured[-1].outcomes[0].commands if " eval.fid " in line)
    assert line.startswith(f"MOBILEDIFF_DATA= OMP_NUM_THREADS={torch.get_num_threads()} python ")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}
    subprocess.run(line, shell=True, check=True, cwd=tmp_path, env=environment, capture_output=True)
    file = "student-1step-fid.json"
    written = json.loads((tmp_path / file).read_text(encoding="utf-8"))
    assert written == measured[-1].outcomes[0].results[file]
    assert written["class_accuracy"] == measured[-1].outcomes[0].figures["Class accuracy"].value


def test_models_are_timed_together(targets, monkeypatch):
    monkeypatch.setattr(evaluation, "ROUNDS", 3)
    *_, last = run(targets, ["teacher", "student-1step"], ["latency"])
    assert last.is_last and {one.model for one in last.outcomes} == {"teacher", "student-1step"}
    for outcome in last.outcomes:
        result = check_result("eval.latency", outcome.results["latency.json"])
        assert outcome.figures["ms an image"].value == result.batches[0].models[outcome.model].image.median_ms
        assert "--model checkpoints/student-1step checkpoints/teacher --threads" in outcome.commands[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": None}, "The models are None"),
        ({"names": "teacher"}, "The models are 'teacher'"),
        ({"names": ["nobody"]}, "There is no model 'nobody'; accepted are student-1step, teacher"),
        ({"names": []}, "No model is chosen"),
        ({"metrics": None}, "The metrics are None"),
        ({"metrics": []}, "No metric is chosen; accepted are frechet_distance"),
        ({"metrics": ["fid"]}, "There is no metric 'fid'; accepted are frechet_distance"),
        ({"n": None}, "number of samples is None; accepted is a whole number from 200 to 2000"),
        ({"n": float("nan")}, "number of samples is nan"),
        ({"n": True}, "number of samples is True"),
        ({"n": "500"}, "number of samples is '500'"),
        ({"n": 190}, "number of samples is 190"),
        ({"n": 10**12}, "number of samples is 1000000000000; accepted is a whole number from 200 to 2000"),
        ({"n": 505}, "number of samples is 505; accepted is a multiple of 10"),
        ({"n": 250, "metrics": ["frechet_distance"]}, "250 images are too few: .* at least 257"),
        ({"seed": -1}, "The seed is -1"),
        ({"seed": float("inf")}, "The seed is inf"),
    ],
)
def test_bad_requests_are_refused_before_any_work(targets, monkeypatch, changes, message):
    monkeypatch.setattr(targets, "get", lambda name: pytest.fail("loaded"))
    request = {"names": ["teacher"], "metrics": ["class_accuracy"], "n": 200, "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        check_request(targets, *request.values(), most=2000)


@pytest.mark.parametrize(
    ("name", "metrics", "reached", "delay"),
    [
        ("teacher", ["class_accuracy"], "Loading", 0.0),
        ("teacher", ["class_accuracy"], "Loading", 1.5),
        ("student-1step", ["frechet_distance"], "measuring", 0.1),
        ("student-1step", ["manifold"], "measuring", 1.0),
        ("teacher", ["latency"], "Timing", 1.0),
    ],
)
def test_a_cancelled_evaluation_ends_within_a_second_wherever_it_is(targets, name, metrics, reached, delay):
    threads, cancelled, set_at = threading.active_count(), threading.Event(), []

    def cancel():
        set_at.append(time.monotonic())
        cancelled.set()

    timer = threading.Timer(delay, cancel)
    for state in run(targets, [name], metrics, 1000, cancelled=cancelled):
        if reached in state.text and not timer.is_alive():
            timer.start()
    assert time.monotonic() - set_at[0] < 1
    assert not state.is_last
    timer.join()
    assert threading.active_count() == threads
    with TURNS.of_visitor():
        pass


def test_a_model_that_fails_leaves_the_others_their_figures(targets, monkeypatch):
    load = targets.get

    def get(name):
        if name == "teacher":
            raise ValueError("checkpoints/teacher is left out")
        return load(name)

    monkeypatch.setattr(targets, "get", get)
    *_, last = run(targets, ["teacher", "student-1step"])
    found = {one.model: one for one in last.outcomes}
    assert found["teacher"].sentences == ["Failed: checkpoints/teacher is left out"]
    assert "Class accuracy" in found["student-1step"].figures and last.text.startswith("Done, but not all")


def test_an_error_while_drawing_is_told_without_its_details(targets, monkeypatch, caplog):
    def draw(*args, **options):
        raise RuntimeError("/secret/path")
        yield

    monkeypatch.setattr(evaluation, "draw_samples", draw)
    *_, last = run(targets)
    assert last.outcomes[0].sentences == ["Failed: This model failed; the log of the app says why."]
    assert "/secret/path" in caplog.text


def test_weights_that_were_not_shipped_have_nothing_to_be_compared_with(measured):
    assert measured[-1].outcomes[0].sentences == [
        "The shipped results hold no figures of these very weights, so there is nothing to compare with."
    ]


@pytest.mark.parametrize(("macs", "size"), [(1, 64), (PIECE_MACS // 3, 3), (PIECE_MACS * 2, 1)])
def test_batches_depend_on_the_work_alone(macs, size):
    assert batch_size_of(macs) == size
