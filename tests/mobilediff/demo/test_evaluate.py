"""The tab as a visitor's program drives it: an evaluation streams, is cancelled, refuses bad input, lets others by."""

import base64
import json
import re
import shutil
import time

import gradio as gr
import httpx
import pytest
from gradio_client import Client

from eval.schema import check_result
from mobilediff.demo import compare, evaluate
from mobilediff.demo.service.models import Models

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tab") / "checkpoints"
    for name in ("student-1step", "teacher"):
        shutil.copytree(checkpoints / name, folder / name)
    models = Models(folder)
    models.all()
    with gr.Blocks() as demo:
        compare.build_tab(demo, models, [])
        evaluate.build_tab(models)
    _, url, _ = demo.queue().launch(prevent_thread_lock=True, quiet=True, show_error=True, ssr_mode=False)
    yield url
    demo.close()


@pytest.fixture
def client(url):
    return Client(url, verbose=False)


def submit(client, names=("student-1step",), metrics=("class_accuracy",), n=200, seed=0):
    return client.submit(list(names), list(metrics), n, seed, api_name="/evaluate")


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def test_an_evaluation_streams_and_ends_with_results_of_the_schema(client):
    job = submit(client, metrics=("class_accuracy", "clip_score"), n=300)
    outcomes, progress, figures, newest = job.result(timeout=100)
    assert len(job.outputs()) > 3
    (outcome,) = outcomes
    assert set(outcome["results"]) == {"student-1step-accuracy.json", "student-1step-clip_score.json"}
    for content in outcome["results"].values():
        assert check_result(content["command"], content).n == 300
    assert "Done." in progress and 'value="1.0000"' in progress
    names = [row[1] for row in figures["data"]]
    assert names == ["Class accuracy", "CLIP score"] and figures["data"][0][0] == "student-1step"
    assert "data:image/png;base64," in newest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('[null, ["class_accuracy"], 200, 0]', "The models are None; accepted"),
        (r'[["\ud800"], ["class_accuracy"], 200, 0]', r"There is no model '\\ud800'; accepted"),
        ('[["teacher"], null, 200, 0]', "The metrics are None; accepted"),
        ('[["teacher"], [], 200, 0]', "No metric is chosen; accepted"),
        ('[["teacher"], ["fid"], 200, 0]', "There is no metric 'fid'; accepted"),
        ('[["teacher"], ["class_accuracy"], null, 0]', "The number of samples is None; accepted"),
        ('[["teacher"], ["class_accuracy"], NaN, 0]', "The number of samples is nan; accepted"),
        ('[["teacher"], ["class_accuracy"], 1e12, 0]', "The number of samples is 1000000000000.0; accepted"),
        ('[["teacher"], ["class_accuracy"], {"a": 1}, 0]', "The number of samples is {'a': 1}; accepted"),
        ('[["teacher"], ["class_accuracy"], 200, null]', "The seed is None; accepted"),
    ],
)
def test_bad_input_is_answered_by_a_message(url, data, message):
    address, headers = url + "gradio_api/call/evaluate", {"content-type": "application/json"}
    event = httpx.post(address, content=f'{{"data": {data}}}', headers=headers).json()["event_id"]
    answer = httpx.get(f"{address}/{event}", timeout=60).text
    assert answer.startswith("event: error") and message in answer


def test_cancelling_stops_within_a_second_and_frees_the_queue(client, url):
    job = submit(client, ["teacher"], n=2000)
    wait_for(job.outputs)
    time.sleep(1)  # in the middle of a batch
    other = Client(url, verbose=False)
    job.cancel()
    start = time.monotonic()
    job = submit(other)
    wait_for(lambda: job.outputs(), 10)
    assert time.monotonic() - start < 2  # with the first answer to the next visitor
    job.result(timeout=60)


def test_a_comparison_gets_by_while_two_thousand_samples_are_measured(client, url):
    job = submit(client, ["teacher"], ["frechet_distance", "manifold"], n=2000)
    wait_for(job.outputs)
    time.sleep(1)  # in the middle of a batch
    other = Client(url, verbose=False)
    for _ in range(3):
        start = time.monotonic()
        records, _ = other.predict("a fire truck", 0, 4, ["student-1step"], api_name="/compare")
        assert time.monotonic() - start < 5
        assert records[0]["status"] == "done"
    assert not job.done()
    job.cancel()


OUTCOME = {
    "run": "a", "model": "m", "n": 200, "seed": 1, "figures": {}, "results": {"x.json": {"command": "x"}},
    "commands": ["python -m x"], "sentences": ["Agrees."],
}  # fmt: skip


def test_results_stay_for_the_visit_and_newer_ones_of_a_run_replace_older():
    history, *_ = evaluate.remember([], [OUTCOME])
    timed = OUTCOME | {"figures": {"ms an image": {"value": 1.23456}}}
    history, table, described, downloads = evaluate.remember(history, [timed])
    assert history == [timed] and table[0][:4] == [1, "m", 200, 1] and table[0][-1] == 1.235
    assert "Agrees." in described and "```bash\npython -m x\n```" in described
    data = re.search('href="data:application/json;base64,([^"]+)"', downloads)[1]
    assert json.loads(base64.b64decode(data)) == {"command": "x"}
    history, table, *_ = evaluate.remember(history, [OUTCOME | {"run": "b"}])
    assert [row[0] for row in table] == [1, 2]
    many = [OUTCOME | {"run": str(number)} for number in range(evaluate.MAX_ROWS + 5)]
    assert len(evaluate.remember(history, many)[0]) == evaluate.MAX_ROWS


@pytest.mark.parametrize("number", [0, 2, None, float("nan"), "1", [1], {"0": 1}])
def test_a_result_that_is_not_of_the_visit_is_refused_by_name(number):
    assert evaluate.choose_result([OUTCOME], 1) == OUTCOME
    with pytest.raises(ValueError, match=r"The number of the result is .*; accepted is a whole number from 1 to 1\."):
        evaluate.choose_result([OUTCOME], number)


@pytest.mark.parametrize("value", ["abc", "199", "-1", "1e3", "²"])
def test_a_largest_number_of_samples_that_is_none_stops_the_start(monkeypatch, value, tmp_path):
    monkeypatch.setenv("MOBILEDIFF_MAX_SAMPLES", value)
    with gr.Blocks(), pytest.raises(ValueError, match=f"MOBILEDIFF_MAX_SAMPLES is {value}; accepted is a whole"):
        evaluate.build_tab(Models(tmp_path))
