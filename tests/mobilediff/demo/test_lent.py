"""On a Space with ZeroGPU a forked process draws the same pictures; elsewhere the package changes nothing."""

import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor

import pytest

from mobilediff.demo.service import drawing, exploration, lent
from mobilediff.demo.service.drawing import draw

# The package's own rule: a function is wrapped on a Space with ZeroGPU alone, elsewhere it stays the same object.
PACKAGE = """
import functools, os
def GPU(task):
    if os.environ.get("SPACES_ZERO_GPU") != "true":
        return task
    return functools.wraps(task)(lambda *args: task(*args))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "spaces.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def lent_gpu(monkeypatch):
    """Let a forked process draw, which gets and returns what can be pickled; the GPU is the processor."""

    def in_forked_process(*args):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            return pool.submit(lent.draw_timed, *pickle.loads(pickle.dumps(args))).result()

    monkeypatch.setattr(lent, "DEVICE", "cpu")
    monkeypatch.setattr(drawing, "draw_lent", in_forked_process)
    monkeypatch.setattr(drawing, "LENT", True)


def test_without_the_package_no_function_is_changed():
    assert lent.lend_gpu(len) is len
    assert not lent.LENT


def test_the_package_changes_nothing_elsewhere(package):
    assert lent.lend_gpu(len) is len


def test_the_package_wraps_on_a_space_with_zerogpu(package, monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert lent.lend_gpu(len) is not len
    assert lent.lend_gpu(len)("abc") == 3


@pytest.mark.parametrize("name", ["student-1step", "student-8step"])
def test_a_forked_process_draws_the_same_pictures(models, lent_gpu, monkeypatch, name):
    model, never = models.get(name), threading.Event()
    forked = draw(model, "a fire truck", 3, 2, never)
    monkeypatch.setattr(drawing, "LENT", False)
    own = draw(model, "a fire truck", 3, 2, never)
    assert forked.problem is None and forked.latency_ms > 0
    assert [image.tobytes() for image in forked.images] == [image.tobytes() for image in own.images]


def test_latents_and_embeddings_reach_and_leave_the_forked_process(models, lent_gpu):
    *_, (film, _) = exploration.explore_latents(models, "student-8step", "a cat", 0, threading.Event())
    assert len(film["pictures"]) == max(exploration.steps_of(models.get("student-8step"))) + 1
    *_, (strip, _) = exploration.explore_prompts(models, "student-1step", "a cat", "a dog", 0, 3, threading.Event())
    assert len(strip["pictures"]) == 3


def test_a_visitor_reads_why_the_gpu_did_not_draw(models, monkeypatch, lent_gpu):
    def used_up(*_):
        raise RuntimeError("You have exceeded your quota.")

    monkeypatch.setattr(drawing, "draw_lent", used_up)
    problem = draw(models.get("student-1step"), "a fire truck", 0, 1, threading.Event()).problem
    assert problem == "The lent GPU did not draw: You have exceeded your quota."


def test_a_cancelled_call_asks_for_no_gpu(models, lent_gpu, monkeypatch):
    monkeypatch.setattr(drawing, "draw_lent", lambda *_: pytest.fail("the GPU was asked for"))
    cancelled = threading.Event()
    cancelled.set()
    assert draw(models.get("student-1step"), "a fire truck", 0, 1, cancelled).problem == "cancelled"
