"""The app as a visitor's program drives it: through gradio_client, on tiny stand-ins."""

import base64
import io
import json
import logging
import os
import re
import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

import app
import eval.protocol
from mobilediff.demo.compare import introduction
from mobilediff.demo.service import comparison, drawing
from mobilediff.demo.service import examples as example_files
from mobilediff.demo.service.models import FAMILY, Models
from tests.tiny import MAX_TOKENS

pytestmark = pytest.mark.slow

ORDER = ["student-1step", "student-8step", "teacher"]
TWO = ["student-1step", "twin"]


def pictures(record: dict) -> list[bytes]:
    """A record's images, decoded to pixels; each is a lossless 32 x 32 PNG."""
    images = [Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) for uri in record["images"]]
    assert all(image.format == "PNG" and image.size == (32, 32) for image in images)
    return [image.convert("RGB").tobytes() for image in images]


@pytest.fixture(scope="module")
def checkpoints(checkpoints, tmp_path_factory):
    """Three that work, one of them there twice, one with truncated weights, and `student` not there at all."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ORDER:
        shutil.copytree(checkpoints / name, folder / name)
    shutil.copytree(folder / "student-1step", folder / "twin")
    shutil.copytree(folder / "student-1step", folder / "student-1step-pruned")
    weights = next((folder / "student-1step-pruned" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return folder


@pytest.fixture(scope="module")
def loaded(checkpoints):
    models = Models(checkpoints)
    models.all()
    return models


@pytest.fixture(scope="module")
def twin(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin")
    shutil.copytree(checkpoints / "twin", folder / "twin")
    return Models(folder)


@pytest.fixture(scope="module")
def examples(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("app") / "examples"
    drawn_with = tmp_path_factory.mktemp("students")
    for name in ("student-1step", "student-8step", "twin"):
        shutil.copytree(checkpoints / name, drawn_with / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example_files, "EXAMPLE_PROMPTS", ("a fire truck", "a tabby"))
        example_files.precompute(Models(drawn_with), folder)
    return folder


@pytest.fixture(scope="module")
def client(loaded, examples):
    demo = app.build_app(loaded, [], example_files.load_examples(examples))
    url = app.launch(demo, prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False)
    demo.close()


def run(client, prompt="a fire truck", seed=0, count=1, models=("student-1step",)):
    return client.predict(
        prompt, seed, count, list(models) if isinstance(models, tuple) else models, api_name="/compare"
    )


def test_problems_are_named_and_the_others_start(loaded, checkpoints, caplog):
    problems = loaded.problems()
    assert [model.name for model in loaded.all()] == loaded.names == [*ORDER, "twin"]
    assert len(problems) == 2
    assert any(problem == f"{checkpoints.name}/student is missing." for problem in problems)
    assert any(problem.startswith(f"{checkpoints.name}/student-1step-pruned is left out: ") for problem in problems)
    assert str(checkpoints) not in "".join(problems)  # a visitor reads them
    Models(checkpoints).all()
    assert f"{checkpoints}/student-1step-pruned" in caplog.text
    page = app.describe(loaded, [], [])
    assert all(problem in page for problem in problems)
    assert "--precompute" in page


@pytest.mark.parametrize(("device", "machine"), [("mps", "the Mac's (mps, threads: "), ("cpu", "the Mac's (cpu, ")])
def test_the_page_names_a_device_whose_module_tells_no_name(device, machine, monkeypatch):
    assert not hasattr(torch.mps, "get_device_name")  # unlike torch.cuda and torch.xpu
    monkeypatch.setattr(eval.protocol, "_cpu_name", lambda: "the Mac's")
    assert machine in introduction(torch.device(device))


@pytest.mark.parametrize("name", ["a`b", "${alert(1)}", "a\\\\b"])
def test_a_name_that_the_page_would_run_is_left_out(tmp_path, name):
    (tmp_path / name).mkdir()
    models = Models(tmp_path)
    problems = models.problems()
    assert models.names == []
    (problem,) = [problem for problem in problems if "may not hold a backtick, dollar or backslash" in problem]
    assert not set(problem) & set("`$\\")


def test_folders_with_spaces_and_umlauts_are_loaded(checkpoints, tmp_path):
    folder = tmp_path / "meine Prüfung 1"
    shutil.copytree(checkpoints / "student-1step", folder / "Schüler eins")
    models = Models(folder)
    assert [model.name for model in models.all()] == ["Schüler eins"]
    assert len(models.problems()) == len(FAMILY)


def test_no_checkpoint_at_all_still_makes_a_page_that_says_so(tmp_path):
    models = Models(tmp_path / "nowhere")
    assert models.all() == []
    assert len(models.problems()) == len(FAMILY)
    app.build_app(models, [], [])
    with pytest.raises(ValueError, match="none could be loaded"):
        next(comparison.compare(models, [], "a fire truck", 0, 1, threading.Event()))


def test_results_are_streamed_the_fastest_first(client):
    job = client.submit("a fire truck", 0, 2, ORDER, api_name="/compare")
    job.result(timeout=120)
    steps = [[record["status"] for record in records] for records, _ in job.outputs()]
    assert [record["name"] for record in job.outputs()[-1][0]] == ORDER
    assert steps == [
        ["running", "waiting", "waiting"],
        ["done", "running", "waiting"],
        ["done", "done", "running"],
        ["done", "done", "done"],
    ]


def test_a_record_states_what_was_measured_and_counted(client, loaded):
    records, note = run(client, count=3, models=["teacher"])
    teacher = loaded.get("teacher")
    (record,) = records
    vae = teacher.pipeline.vae
    parts = (teacher.pipeline.unet, vae.decoder, vae.post_quant_conv, teacher.pipeline.text_encoder)
    assert note == ""
    assert record["nfe"] == 100  # 50 guided steps
    assert record["params"] == sum(parameter.numel() for part in parts for parameter in part.parameters())
    assert record["macs"] == teacher.macs > 0
    assert record["batch_size"] == len(record["images"]) == 3
    assert record["latency_ms"] > 0
    assert f"{record['latency_ms']:,.0f} ms for 3 images" == record["time"]


def test_a_telephone_can_install_the_page(client):
    manifest = httpx.get(f"{client.src}manifest.json").raise_for_status().json()
    assert (manifest["name"], manifest["display"], manifest["start_url"]) == ("mobilediff", "standalone", "./")
    icon = httpx.get(f"{client.src}{manifest['icons'][0]['src'].lstrip('/')}")
    assert icon.is_success and icon.headers["content-type"].startswith("image/")
    assert client.config["pwa"]


def test_the_documented_calls_draw(client, tmp_path, monkeypatch):
    documented = (Path(app.__file__).parent / "docs" / "on-device.md").read_text(encoding="utf-8")
    (python,) = (block for block in re.findall(r"```python\n(.*?)```", documented, re.DOTALL) if "7860" in block)
    monkeypatch.chdir(tmp_path)
    exec(python.replace("http://127.0.0.1:7860", client.src), {})
    by_python = Image.open("fire-truck.png").convert("RGB").tobytes()
    # as the lines of JavaScript do
    call = f"{client.src}gradio_api/call/compare"
    assert "/gradio_api/call/compare" in documented
    body = '{ data: ["a fire truck", 7, 1, ["student-1step"], "own", "own", null] }'
    assert body in documented
    event = httpx.post(call, json={"data": json.loads(body[8:-2])}).json()["event_id"]
    last = httpx.get(f"{call}/{event}", timeout=60).text.strip().split("\n")[-1]
    records, _ = json.loads(last.removeprefix("data: "))
    assert pictures(records[0]) == [by_python]


def test_same_seed_same_pictures_whatever_the_count(client):
    (first,), _ = run(client, seed=5, count=1)
    (again,), _ = run(client, seed=5, count=3)
    (other,), _ = run(client, seed=9, count=1)
    # a kernel that rounds otherwise at another batch size may move a pixel by one level
    assert max(abs(a - b) for a, b in zip(pictures(first)[0], pictures(again)[0], strict=True)) <= 1
    assert max(abs(a - b) for a, b in zip(pictures(first)[0], pictures(other)[0], strict=True)) > 1
    assert len(set(pictures(again))) == 3


def test_every_model_starts_from_the_same_noise(client):
    records, _ = run(client, seed=3, count=2, models=["student-1step", "twin"])
    assert pictures(records[0]) == pictures(records[1])


def test_the_prompt_decides_the_picture(client):
    assert pictures(run(client, "a fire truck")[0][0]) != pictures(run(client, "a tabby")[0][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "   "}, "prompt is empty"),
        ({"prompt": None}, "prompt is None; accepted is text"),
        ({"prompt": 7}, "prompt is 7; accepted is text"),
        ({"prompt": ["a cat"]}, r"prompt is \['a cat'\]; accepted is text"),
        ({"prompt": "truck " * 50}, "has 300 characters; accepted are up to 200"),
        ({"prompt": "truck " * 30}, f"tokens; accepted are up to {MAX_TOKENS}"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, f"seed is {2**32}"),
        ({"seed": 10**400}, "seed is 1000+...; accepted"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": None}, "seed is None"),
        ({"seed": "7"}, "seed is '7'; accepted is a whole number"),
        ({"seed": True}, "seed is True; accepted is a whole number"),
        ({"count": 0}, "number of images is 0; accepted is a whole number from 1 to 8"),
        ({"count": 9}, "number of images is 9"),
        ({"count": 2.5}, "number of images is 2.5"),
        ({"count": None}, "number of images is None"),
        ({"count": "two"}, "number of images is 'two'"),
        ({"models": []}, "No model is chosen"),
        ({"models": None}, "models are None; accepted is a list of names"),
        ({"models": "teacher"}, "models are 'teacher'; accepted is a list of names"),
        ({"models": [["teacher"]]}, r"models are \[\['teacher'\]\]; accepted is a list of names"),
        ({"models": ["teacher-xl"]}, "no model 'teacher-xl'; accepted are student-1step, "),
        ({"models": [f"model-{i}" for i in range(10_000)]}, "no model 'model-0' and 9,999 more; accepted are "),
    ],
)
def test_bad_input_is_refused_by_name(client, arguments, message):
    with pytest.raises(AppError, match=message):
        run(client, **arguments)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("compare", '["a cat", NaN, 1, ["teacher"], OWN]', "seed is nan; accepted"),
        ("compare", '["a cat", 1e309, 1, ["teacher"], OWN]', "seed is inf; accepted"),
        ("compare", '["a cat", 1e308, 1, ["teacher"], OWN]', "seed is 1e+308; accepted"),
        ("compare", '["a cat", 0, -Infinity, ["teacher"], OWN]', "number of images is -inf; accepted"),
        ("compare", '["a cat", 0, NaN, ["teacher"], OWN]', "number of images is nan; accepted"),
        (
            "compare",
            r'["a cat \ud83d", 0, 1, ["teacher"], OWN]',
            r"prompt 'a cat \\ud83d' holds half a surrogate pair; accepted",
        ),
        ("compare", r'["\udc00", 0, 1, ["teacher"], OWN]', r"prompt '\\udc00' holds half a surrogate pair; accepted"),
        ("compare", '["a cat", 0, {"a": 1}, ["teacher"], OWN]', "number of images is {'a': 1}; accepted"),
        ("compare", '["a cat", 0, 1, {"teacher": true}, OWN]', "models are {'teacher': True}; accepted"),
        ("compare", '["a cat", 0, 1, [null], OWN]', "models are [None]; accepted"),
        ("compare", '["a cat", 0, 1]', "didn't receive enough input values (needed: 7, got: 3)"),
        ("compare", "[]", "didn't receive enough input values (needed: 7, got: 0)"),
        ("compare", '["a cat", 0, 1, ["teacher"], NaN, "own", null]', "steps of one-step students is nan; accepted"),
        ("compare", '["a cat", 0, 1, ["teacher"], "own", {}, null]', "steps of teacher and student is {}; accepted"),
        ("compare", '["a cat", 0, 1, ["teacher"], "own", "own", 1e309]', "guidance is inf; accepted"),
        ("example", "[]", "didn't receive enough input values (needed: 1, got: 0)"),
        ("example", "[NaN]", "example is nan; accepted"),
        ("example", "[1e309]", "example is inf; accepted"),
        ("example", "[[0]]", "example is [0]; accepted"),
    ],
)
def test_what_only_a_raw_request_can_hold_is_refused_by_name(client, name, data, message):
    url, headers = client.src + f"gradio_api/call/{name}", {"content-type": "application/json"}
    data = data.replace("OWN", '"own", "own", null')
    event = httpx.post(url, content=f'{{"data": {data}}}', headers=headers).json()["event_id"]
    answer = httpx.get(f"{url}/{event}", timeout=60).text
    assert answer.startswith("event: error")
    assert message in answer
    assert run(client)[0][0]["status"] == "done"  # the queue goes on


@pytest.mark.parametrize("body", ['{"data": null}', '{"data": "a cat"}', "{}", "[]", "a cat"])
def test_a_request_that_is_no_list_of_values_is_refused(client, body):
    headers = {"content-type": "application/json"}
    answer = httpx.post(client.src + "gradio_api/call/compare", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"]
    assert run(client)[0][0]["status"] == "done"


def test_a_model_chosen_ten_thousand_times_draws_once(client):
    records, _ = run(client, models=["twin"] * 10_000)
    assert [record["name"] for record in records] == ["twin"]


@pytest.mark.parametrize("index", [99, -1, None, 0.5, "1", True])
def test_an_example_that_is_not_there_is_refused_by_name(client, index):
    with pytest.raises(AppError, match=f"example is {index!r}; accepted is a whole number from 0 to 1"):
        client.predict(index, api_name="/example")


def test_no_call_goes_past_the_queue(client):
    data = ["a cat", 0, 1, ["teacher"], "own", "own", None]
    answer = httpx.post(client.src + "gradio_api/run/compare", json={"data": data})
    assert answer.status_code == 404


def slowly(pipeline, monkeypatch, started: threading.Event, seconds: float = 0.05) -> list[int]:
    """Make a pipeline's network take its time; the list counts the calls that met another one under way."""
    forward, busy, met = pipeline.unet.forward, threading.Lock(), []

    def slow(*args, **kwargs):
        alone = busy.acquire(blocking=False)
        if not alone:
            met.append(1)
        started.set()
        time.sleep(seconds)
        output = forward(*args, **kwargs)
        if alone:
            busy.release()
        return output

    monkeypatch.setattr(pipeline.unet, "forward", slow)
    return met


def test_a_cancelled_job_leaves_nothing_behind(client, loaded, monkeypatch):
    teacher = loaded.get("teacher").pipeline
    quiet, _ = run(client, "a tabby", seed=3, count=2, models=["teacher"])
    hooks, modules = len(teacher.unet._forward_pre_hooks), dict(vars(teacher.scheduler))
    started = threading.Event()
    threads = []
    for _ in range(3):
        with monkeypatch.context() as patch:
            started.clear()
            met = slowly(teacher, patch, started)
            job = client.submit("a fire truck", 0, 4, ["teacher"], api_name="/compare")
            assert started.wait(60)
            start = time.monotonic()
            job.cancel()
            assert time.monotonic() - start < 2  # fifty steps would take longer
            again, _ = run(Client(client.src, verbose=False), "a tabby", seed=3, count=2, models=["teacher"])
        assert pictures(again[0]) == pictures(quiet[0])
        assert met == []
        threads.append(sum(thread.name.startswith(("asyncio", "AnyIO")) for thread in threading.enumerate()))
    assert threads[-1] <= threads[0] + 1
    assert len(teacher.unet._forward_pre_hooks) == hooks
    assert set(vars(teacher.scheduler)) == set(modules)


def test_draws_of_several_threads_wait_for_each_other(loaded, monkeypatch):
    model = loaded.get("student-8step")
    quiet = [image.tobytes() for image in drawing.draw(model, "a tabby", 0, 2, threading.Event()).images]
    met, drawn = slowly(model.pipeline, monkeypatch, threading.Event(), 0.01), []

    def draw():
        images = drawing.draw(model, "a tabby", 0, 2, threading.Event()).images
        drawn.append([image.tobytes() for image in images])

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert met == []
    assert drawn == [quiet] * 3


def test_a_job_cancelled_while_it_waits_draws_nothing(loaded, monkeypatch):
    model = loaded.get("twin")
    monkeypatch.setattr(model.pipeline.unet, "forward", lambda *args, **kwargs: pytest.fail("a network ran"))
    cancelled = threading.Event()
    cancelled.set()
    assert drawing.draw(model, "a tabby", 0, 1, cancelled) == drawing.Drawing("cancelled")


def test_an_unknown_noun_is_drawn_with_a_note_that_names_near_ones(client):
    records, note = run(client, "a fire trukc <b>")
    assert records[0]["status"] == "done"
    assert "fire truck" in note
    assert "<b>" not in note  # what a visitor typed is shown as text
    assert run(client)[1] == ""


def test_the_note_comes_first_whatever_is_logged(loaded, monkeypatch):
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    notes = [note for _, note in comparison.compare(loaded, TWO, "a fire trukc", 0, 1, threading.Event())]
    assert notes[0].count("names nothing that the model was trained on") == 1  # one for both models
    assert notes == [notes[0]] * 3


def test_a_model_that_ends_in_nan_fails_alone(loaded, monkeypatch):
    broken = loaded.get(TWO[0]).pipeline.unet
    monkeypatch.setattr(broken, "forward", lambda *args, **kwargs: (args[0] * float("nan"),))
    *_, (records, _) = comparison.compare(loaded, TWO, "a fire truck", 0, 1, threading.Event())
    assert [record["status"] for record in records] == ["failed", "done"]
    assert "NaN" in records[0]["time"]


def test_a_model_that_raises_fails_alone_and_tells_the_log_why(loaded, monkeypatch, caplog):
    def raise_error(*args, **kwargs):
        raise RuntimeError("no memory in /home/secret")

    monkeypatch.setattr(loaded.get(TWO[0]).pipeline.unet, "forward", raise_error)
    *_, (records, _) = comparison.compare(loaded, TWO, "a fire truck", 0, 1, threading.Event())
    assert [record["status"] for record in records] == ["failed", "done"]
    assert records[0]["time"] == "This model failed; the log of the app says why."
    assert "no memory in /home/secret" in caplog.text


def test_examples_are_shown_without_running_a_model(client, examples, monkeypatch):
    def refuse(*args):
        raise AssertionError("a model ran")

    monkeypatch.setattr(comparison, "draw", refuse)
    stored = json.loads((examples / "examples.json").read_text())["examples"][1]
    prompt, seed, count, records, note = client.predict(1, api_name="/example")
    assert (prompt, seed, count, note) == ("a tabby", 0, 4, "")
    for record, kept in zip(records, stored["records"], strict=True):
        files = [Image.open(examples / file).convert("RGB").tobytes() for file in kept["images"]]
        assert pictures(record) == files
        assert len(files) == 4
        assert record["figures"][-1].startswith("precomputed on ")


def test_examples_of_other_weights_are_named(loaded, examples):
    shown = example_files.load_examples(examples)
    assert example_files.stale_examples(shown, loaded.all()) == []
    shown[0]["records"][0]["model_sha256"] = "other"
    name = shown[0]["records"][0]["name"]
    assert example_files.stale_examples(shown, loaded.all()) == [name]
    assert f"The examples of {name} show older weights" in app.describe(loaded, [], shown)


def test_another_folder_is_not_replaced_by_examples(loaded, tmp_path):
    (tmp_path / "holiday.png").write_bytes(b"")
    with pytest.raises(FileExistsError, match="holds no examples.json but other files"):
        example_files.precompute(loaded, tmp_path)
    assert (tmp_path / "holiday.png").exists()


def test_examples_are_replaced_once_all_are_drawn(twin, examples, tmp_path, monkeypatch):
    folder = tmp_path / "examples"
    shutil.copytree(examples, folder)
    before = files_of(folder)
    monkeypatch.setattr(example_files, "EXAMPLE_PROMPTS", ("a tabby", ""))
    with pytest.raises(ValueError, match="prompt is empty"):
        example_files.precompute(twin, folder)
    assert files_of(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def files_of(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def precompute_twin(twin, folder, monkeypatch):
    monkeypatch.setattr(example_files, "EXAMPLE_PROMPTS", ("a tabby",))
    example_files.precompute(twin, folder)


@pytest.mark.parametrize("place", ["folder", "link", "mount point"])
def test_new_examples_leave_the_folder_itself_and_what_is_not_theirs(twin, examples, tmp_path, monkeypatch, place):
    folder = tmp_path / "examples"
    shutil.copytree(examples, folder)
    (folder / "notes.txt").write_text("mine")
    if place == "link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to("elsewhere")
    replace = os.replace

    def busy(source, target):
        if place == "mount point" and str(folder) in (str(source), str(target)):
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    precompute_twin(twin, folder, monkeypatch)
    (example,) = example_files.load_examples(folder)
    assert [record["name"] for record in example["records"]] == ["twin"]
    assert folder.is_symlink() == (place == "link")
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(files_of(folder)) == 2 + 4  # nothing of the old ones is left
    assert sorted(path.name for path in folder.iterdir()) == ["a-tabby", "examples.json", "notes.txt"]


def test_old_examples_are_whole_until_the_new_ones_are(twin, examples, tmp_path, monkeypatch):
    folder = tmp_path / "examples"
    shutil.copytree(examples, folder)
    before = example_files.load_examples(folder)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(example_files, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        precompute_twin(twin, folder, monkeypatch)
    assert example_files.load_examples(folder) == before


def test_damaged_examples_are_drawn_again(twin, tmp_path, monkeypatch):
    (tmp_path / "examples.json").write_text('{"examples": [{"records": [{"images": ["../secret.png"]}]}]}')
    precompute_twin(twin, tmp_path, monkeypatch)
    assert len(example_files.load_examples(tmp_path)) == 1


def test_new_examples_remove_nothing_outside_their_folder(twin, tmp_path, monkeypatch):
    (tmp_path / "secret.png").write_bytes(b"mine")
    folder = tmp_path / "examples"
    folder.mkdir()
    (folder / "examples.json").write_text('{"examples": [{"records": [{"images": ["../secret.png"]}]}]}')
    precompute_twin(twin, folder, monkeypatch)
    assert (tmp_path / "secret.png").read_bytes() == b"mine"


def test_a_fresh_volume_takes_examples(tmp_path):
    (tmp_path / "lost+found").mkdir()
    example_files.check_examples_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lost+found"]


def test_places_that_cannot_hold_examples_are_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(app, "Models", lambda folder: pytest.fail("models were loaded"))
    for name, message in [("file", "is no folder"), ("file/examples", "Not a directory")]:
        monkeypatch.setenv("MOBILEDIFF_EXAMPLES", str(tmp_path / name))
        with pytest.raises(OSError, match=message):
            app.main(["--precompute"])


def test_damaged_examples_are_named(examples, tmp_path):
    shutil.copytree(examples, tmp_path / "examples")
    next((tmp_path / "examples" / "a-tabby").glob("student-1step-*-0.png")).unlink()
    with pytest.raises(ValueError, match="examples holds damaged examples: .*student-1step-.*-0.png"):
        example_files.load_examples(tmp_path / "examples")


def test_missing_examples_are_no_error(tmp_path):
    assert example_files.load_examples(tmp_path) == []


def test_examples_without_a_model_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEDIFF_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("MOBILEDIFF_EXAMPLES", str(tmp_path / "examples"))
    with pytest.raises(ValueError, match="no checkpoint of .* could be loaded, so no example can be drawn"):
        app.main(["--precompute"])
