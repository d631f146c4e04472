"""The tabs Compare and Explore as a visitor's program drives them: names, descriptions, answers, messages."""

import threading
import time

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

import app
from eval.samples.answers import read_answers

pytestmark = pytest.mark.slow

CALLS = {
    "/explore_seeds": (("a fire truck", "student-1step", 0, 4), 4),
    "/explore_nouns": ((["tabby", "emu"], "student-8step", 0), 2),
    "/explore_noise": (("a fire truck", "student", 0, 1, 3), 3),
    "/explore_prompts": (("a red deer", "a fire truck", "teacher", 0, 3), 3),
    "/explore_steps": (("a fire truck", ["student-1step", "student-8step"], 0), 4),
    "/explore_latents": (("a fire truck", "student-8step", 0), 9),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return tmp_path_factory.mktemp("answers") / "arena.sqlite"


@pytest.fixture(scope="module")
def client(models, answers):
    demo = app.build_app(models, [], [], answers=answers)
    url = app.launch(demo, prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False)
    demo.close()


def test_programs_see_a_name_a_description_and_parameters(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    named = {"/compare", "/sheet", "/draw_pair", "/answer_pair", *CALLS}
    assert named <= set(endpoints)
    for name in named:
        assert len(endpoints[name]["description"]) > 30
    names = [parameter["parameter_name"] for parameter in endpoints["/compare"]["parameters"]]
    assert names == ["prompt", "seed", "count", "chosen", "few_steps", "many_steps", "guidance"]
    assert endpoints["/compare"]["parameters"][6]["parameter_has_default"]


@pytest.mark.parametrize("name", CALLS)
def test_an_exploration_answers_with_captioned_pictures(client, name):
    arguments, count = CALLS[name]
    result, notes = client.predict(*arguments, api_name=name)
    assert len(result["pictures"]) == count and notes == ""
    assert all(picture["image"].startswith("data:image/png") and picture["caption"] for picture in result["pictures"])
    assert " ms" in result["text"]


def test_bad_input_is_a_message_and_a_strange_prompt_is_shown_as_text(client):
    with pytest.raises(AppError, match="number of images of teacher is 2"):
        client.predict("a cat", "teacher", 0, 2, api_name="/explore_seeds")
    _, notes = client.predict("a <b>zeppelin", "student-1step", 0, 4, api_name="/explore_seeds")
    assert "zeppelin" in notes and "<b>" not in notes


def test_a_comparison_is_answered_amid_a_long_exploration(client, models, monkeypatch):
    unet, started = models.get("teacher").pipeline.unet, threading.Event()
    forward = unet.forward

    def slow(*args, **kwargs):
        started.set()
        time.sleep(0.02)
        return forward(*args, **kwargs)

    monkeypatch.setattr(unet, "forward", slow)
    monkeypatch.setattr("mobilediff.demo.service.exploration.TURN_MACS", 1)
    job = client.submit("a fire truck", "teacher", 0, 8, api_name="/explore_seeds")
    assert started.wait(60)
    records, _ = Client(client.src, verbose=False).predict("a tabby", 0, 1, ["student-1step"], api_name="/compare")
    assert records[0]["status"] == "done" and not job.done()
    job.cancel()


def test_settings_of_programs_reach_the_models(client):
    records, _ = client.predict("a cat", 0, 1, ["student-1step", "teacher"], 4, 25, 1, api_name="/compare")
    assert [record["nfe"] for record in records] == [4, 25]


def test_a_pair_is_answered_by_its_name_and_once(client, answers):
    pair, name = client.predict(["student-1step", "student-8step"], api_name="/draw_pair")
    assert "student" not in str(pair) and len(pair["pictures"]) == 2
    shown = client.predict(name, "same", api_name="/answer_pair")
    assert {one["caption"] for one in shown["pictures"]} == {"student-1step", "student-8step"}
    (kept,) = read_answers(answers)
    assert [kept.left, kept.right] == [one["caption"] for one in shown["pictures"]] and kept.preferred == "same"
    assert "are kept on this machine, nothing about you" in str(client.config)
    with pytest.raises(AppError, match="waits for an answer; accepted is the one drawn last, once"):
        client.predict(name, "same", api_name="/answer_pair")
    with pytest.raises(AppError, match="One model is chosen, teacher"):
        client.predict(["teacher"], api_name="/draw_pair")


def test_a_sheet_is_a_png_and_nothing_else_is_taken(client):
    records, _ = client.predict("a cat", 0, 2, ["student-1step"], api_name="/compare")
    file = client.predict(records, api_name="/sheet")
    with Image.open(file) as sheet:
        assert sheet.format == "PNG" and sheet.height > 128
    records[0]["images"] = ["/etc/passwd"]
    with pytest.raises(AppError, match="is no PNG"):
        client.predict(records, api_name="/sheet")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?prompt=a+red+deer&seed=17&models=teacher&guidance=2", ["a red deer", 17, ["teacher"], 2]),
        (
            "?seed=%3Cb%3E",
            "The link cannot be restored. The seed is &#x27;&lt;b&gt;&#x27;; accepted",
        ),
    ],
)
def test_the_pages_address_fills_the_choices(client, query, expected):
    (load,) = [
        one["id"]
        for one in client.config["dependencies"]
        if ("load" in [target[1] for target in one["targets"]]) and len(one["outputs"]) == 8
    ]
    body = {"fn_index": load, "data": [], "session_hash": "link"}
    answer = httpx.post(f"{client.src}gradio_api/run/predict{query}", json=body).raise_for_status().json()["data"]
    if isinstance(expected, str):
        assert answer[-1].startswith(expected)
        assert all(one == {"__type__": "update"} for one in answer[:-1])
    else:
        assert [answer[0], answer[1], answer[3], answer[6]] == expected
        assert answer[2] == {"__type__": "update"}
