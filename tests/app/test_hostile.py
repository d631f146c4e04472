"""The app as somebody with bad intent calls it, and as somebody leaves it: raw requests, on tiny stand-ins."""

import asyncio
import inspect
import json
import math
import threading
import time
import uuid
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio.events import EventData
from gradio.state_holder import SessionState
from gradio.utils import get_upload_folder

import app
from mobilediff.demo import compare
from mobilediff.demo.environment import ROOT
from mobilediff.demo.service import evaluation
from mobilediff.demo.service.examples import load_examples
from mobilediff.demo.service.sketches import blank_sketch

pytestmark = pytest.mark.slow

GOOD = ["a fire truck", 0, 1, ["student-1step"], "own", "own", None]
SKETCHED = [blank_sketch(), "a horse", 0, 1, "none", 1]
EVALUATION = [["student-1step"], ["latency"], 200, 0]  # of no samples, to be short


@pytest.fixture(scope="module")
def demo(models):
    demo = app.build_app(models, [], load_examples(ROOT / "examples"))
    yield demo, app.launch(demo, prevent_thread_lock=True, quiet=True) + "gradio_api/"
    demo.close()


@pytest.fixture(scope="module")
def url(demo) -> str:
    return demo[1]


def answer(url: str, name: str, data: list) -> str:
    event = httpx.post(f"{url}call/{name}", json={"data": data}).json()["event_id"]
    return httpx.get(f"{url}call/{name}/{event}", timeout=60).text


def file(path: object, **more) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


FILES = [
    (file("/etc/passwd"), "The file 'passwd' was not uploaded; accepted are uploaded files."),
    (file("app.py"), "The file 'app.py' was not uploaded"),
    (file("../../etc/passwd"), "The file 'passwd' was not uploaded"),
    (file("x", is_stream=True), "The file 'x' was not uploaded"),
    (file("a\0b"), "was not uploaded"),
    (file("a" * 10_000), "was not uploaded"),
    (file("file:///etc/passwd"), "The address 'file:///etc/passwd' is not fetched; accepted are uploaded files."),
    (file("http://169.254.169.254/x.png"), "The address 'http://169.254.169.254/x.png' is not fetched"),
    (file("https://example.org/x.png"), "The address 'https://example.org/x.png' is not fetched"),
    (file(None), "accepted is an uploaded file"),
    (file("x", size="large"), "accepted is an uploaded file"),
    ({"path": "x", "meta": "y"}, "accepted is an uploaded file"),
    ([{"a": {"b": [file("/etc/passwd")]}}], "The file 'passwd' was not uploaded"),
]


@pytest.mark.parametrize(("value", "message"), FILES)
@pytest.mark.parametrize("name", ["compare", "draw", "sheet", "measure_pictures", "repaint"])
def test_a_file_that_was_not_uploaded_is_refused_by_every_component(url, name, value, message):
    repaint = [None, "a horse", 1, "student-1step", 0, 1]
    others = {"compare": GOOD[1:], "draw": SKETCHED[1:], "repaint": repaint}
    given = answer(url, name, [value, *others.get(name, [])])
    assert given.startswith("event: error") and message in json.loads(given.partition("data: ")[2])["error"]
    assert "cache" not in given and app.__file__.rpartition("/")[0] not in given


def test_values_in_each_other_without_end_are_refused(url):
    value: list = []
    for _ in range(300):
        value = [value]
    assert "nested more than 50 deep; accepted" in answer(url, "compare", [value, *GOOD[1:]])


def test_too_few_values_are_counted_without_the_servers_objects(url):
    given = answer(url, "compare", GOOD[:3])
    assert "didn't receive enough input values (needed: 7, got: 3)" in given and "object at 0x" not in given


VALUES = [
    None, True, math.nan, math.inf, 1e308, -(10**400), "", "\ud800", "x" * 10_000,
    [], [None], [[["teacher"]]], ["nowhere"], ["\udc00"], [{"model": 1}], {}, {"headers": 1, "data": [[math.nan]]},
    file("/etc/passwd"),
]  # fmt: skip
EVENTS = [None, 3, "row", ["row", "row_value"], {}, *({"row": value, "row_value": value} for value in VALUES)]


def refusal(demo: gr.Blocks, state: SessionState, function, values: list, event: object = None) -> str | None:
    """Call a function as far as its first answer, and return the message of a refusal; any other error is raised."""

    async def call() -> None:
        request, told = gr.Request(query_params={}), EventData(None, event)
        answer = await demo.process_api(function, values, state, request, event_data=told)
        if answer["iterator"] is not None:
            await answer["iterator"].aclose()

    try:
        asyncio.run(call())
    except gr.Error as error:
        assert not error.print_exception
        return error.message
    return None


def calls_of(function, kind: str) -> list[tuple[list, object]]:
    """Values and events for a function of the page: a made-up value in each place, or made-up events."""
    own = [component.value for component in function.inputs]
    if kind == "value":
        places = [i for i, component in enumerate(function.inputs) if not component.stateful]
        return [([*own[:i], value, *own[i + 1 :]], None) for i in places for value in VALUES]
    takes_event = gr.EventData in inspect.get_annotations(function.fn).values()
    return [(own, event) for event in EVENTS if takes_event]


@pytest.mark.parametrize("kind", ["value", "event"])
def test_every_function_of_the_page_refuses_what_is_made_up(demo, kind, caplog):
    """Each function that the page has, the private ones too, so that a new one is asked as well."""
    blocks, _ = demo
    calls = {function: calls_of(function, kind) for function in blocks.fns.values() if function.fn is not None}
    state, faults = SessionState(blocks), []
    for function in [function for function, found in calls.items() if found]:
        messages = {refusal(blocks, state, function, *call) for call in calls[function]} - {None}
        unclear = [one for one in messages if len(one) > 700 or "log of the app" in one or not one.isprintable()]
        if not messages or unclear or str(ROOT) in str(messages):
            faults.append((function.api_name, unclear or messages))
    assert faults == [] and "Traceback" not in caplog.text
    assert len(calls) > 20


def test_a_failure_is_told_by_the_log_alone(url, monkeypatch, caplog):
    def fail(records):
        raise OSError("no space in /home/secret")

    monkeypatch.setattr(compare, "draw_sheet", fail)
    given = answer(url, "sheet", [[]])
    assert "The call failed; the log of the app says why." in given and "secret" not in given
    assert "no space in /home/secret" in caplog.text


@pytest.mark.parametrize("name", ["example", "result", "results", "evaluate"])
def test_a_call_past_the_queue_where_gradio_answers_errors_with_status_500_is_not_taken(url, name):
    assert httpx.post(f"{url}run/{name}", json={"data": [None]}).status_code == 404


class Visit:
    """A page's connection, by the session that gradio's own page would choose."""

    def __init__(self, demo, name: str, data: list):
        blocks, self.url = demo
        number = next(one["id"] for one in blocks.config["dependencies"] if one["api_name"] == name)
        self.session = uuid.uuid4().hex
        call = {"data": data, "fn_index": number, "session_hash": self.session}
        httpx.post(f"{self.url}queue/join", json=call).raise_for_status()

    def events(self):
        return httpx.stream("GET", f"{self.url}queue/data", params={"session_hash": self.session}, timeout=60)


def leave(demo, name: str, data: list, meanwhile: threading.Event) -> None:
    """Call, and close the connection while a network runs."""
    visit = Visit(demo, name, data)
    with visit.events() as events:
        lines = events.iter_lines()  # httpx closes the connection once nobody holds them
        next(line for line in lines if "process_starts" in line)
        assert meanwhile.wait(60)


def temporary_files() -> set[Path]:
    return set(Path(get_upload_folder()).rglob("*"))


@pytest.mark.parametrize(
    ("name", "data", "next_data"),
    [
        ("compare", ["a tabby", 0, 1, ["teacher"], "own", "own", None], GOOD),
        ("explore_latents", ["a tabby", "teacher", 0], ["a tabby", "student-1step", 0]),
        ("evaluate", [["teacher"], ["class_accuracy"], 200, 0], EVALUATION),
        ("evaluate", [["teacher"], ["latency"], 200, 0], EVALUATION),
    ],
    ids=["comparison", "exploration", "evaluation", "timing"],
)
def test_a_closed_tab_stops_the_work_and_frees_the_queue(demo, models, monkeypatch, name, data, next_data):
    monkeypatch.setattr(evaluation, "ROUNDS", 2)  # of the timing of the next visitor
    files = temporary_files()
    unet = models.get("teacher").pipeline.unet
    forward, started, calls = unet.forward, threading.Event(), []

    def slow(*args, **kwargs):
        calls.append(1)
        started.set()
        time.sleep(0.2)
        return forward(*args, **kwargs)

    monkeypatch.setattr(unet, "forward", slow)
    leave(demo, name, data, started)
    start = time.monotonic()
    with Visit(demo, name, next_data).events() as events:
        next(line for line in events.iter_lines() if "process_completed" in line)
    assert time.monotonic() - start < 8  # fifty steps take ten seconds
    drawn = len(calls)
    time.sleep(0.5)
    assert len(calls) == drawn < 20
    assert temporary_files() == files
