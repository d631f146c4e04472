"""The app as a visitor's program drives it: through gradio_client, on tiny stand-ins."""

import base64
import io
import json
import logging
import shutil

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

import app
from mobilediff.demo import compare as comparison

pytestmark = pytest.mark.slow

ORDER = ["student-1step", "student-8step", "teacher"]


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
    return comparison.load_models(checkpoints)


@pytest.fixture(scope="module")
def examples(loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("app") / "examples"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "EXAMPLE_PROMPTS", ("a fire truck", "a tabby"))
        comparison.precompute([model for model in loaded[0] if model.name != "teacher"], folder)
    return folder


@pytest.fixture(scope="module")
def client(loaded, examples):
    demo = app.build_app(*loaded, comparison.load_examples(examples))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    yield Client(url, verbose=False)
    demo.close()


def run(client, prompt="a fire truck", seed=0, count=1, models=("student-1step",)):
    return client.predict(prompt, seed, count, list(models), api_name="/compare")


def test_problems_are_named_and_the_others_start(loaded, checkpoints):
    models, problems = loaded
    assert sorted(model.name for model in models) == sorted([*ORDER, "twin"])
    assert len(problems) == 2
    assert any(problem == f"{checkpoints.name}/student is missing." for problem in problems)
    assert any(problem.startswith(f"{checkpoints.name}/student-1step-pruned is left out: ") for problem in problems)
    page = app.describe(models, problems, [])
    assert all(problem in page for problem in problems)
    assert "--precompute" in page


def test_no_checkpoint_at_all_still_makes_a_page_that_says_so(tmp_path):
    models, problems = comparison.load_models(tmp_path / "nowhere")
    assert models == []
    assert len(problems) == len(comparison.FAMILY)
    app.build_app(models, problems, [])
    with pytest.raises(ValueError, match="none could be loaded"):
        next(comparison.compare(models, "a fire truck", 0, 1))


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
    teacher = next(model for model in loaded[0] if model.name == "teacher")
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
        ({"prompt": "truck " * 50}, "has 300 characters; accepted are up to 200"),
        ({"prompt": "truck " * 30}, "tokens; accepted are up to 16"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, f"seed is {2**32}"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": None}, "seed is None"),
        ({"count": 0}, "0 is less than minimum value 1"),
        ({"count": 9}, "9 is greater than maximum value 8"),
        ({"count": 2.5}, "number of images is 2.5"),
        ({"models": []}, "No model is chosen"),
        ({"models": ["teacher-xl"]}, "'teacher-xl'"),
    ],
)
def test_bad_input_is_refused_by_name(client, arguments, message):
    with pytest.raises(AppError, match=message):
        run(client, **arguments)


def test_an_unknown_noun_is_drawn_with_a_note_that_names_near_ones(client):
    records, note = run(client, "a fire trukc <b>")
    assert records[0]["status"] == "done"
    assert "fire truck" in note
    assert "<b>" not in note  # what a visitor typed is shown as text
    assert run(client)[1] == ""


def test_the_note_comes_first_whatever_is_logged(loaded, monkeypatch):
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    models = [model for model in loaded[0] if model.name in ("student-1step", "twin")]
    notes = [note for _, note in comparison.compare(models, "a fire trukc", 0, 1)]
    assert notes[0].count("names nothing that the model was trained on") == 1  # one for both models
    assert notes == [notes[0]] * 3


def test_a_model_that_ends_in_nan_fails_alone(loaded, monkeypatch):
    models = [model for model in loaded[0] if model.name in ("student-1step", "twin")]
    broken = models[0].pipeline.unet
    monkeypatch.setattr(broken, "forward", lambda *args, **kwargs: (args[0] * float("nan"),))
    *_, (records, _) = comparison.compare(models, "a fire truck", 0, 1)
    assert [record["status"] for record in records] == ["failed", "done"]
    assert "NaN" in records[0]["time"]


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
    shown = comparison.load_examples(examples)
    assert comparison.stale_examples(shown, loaded[0]) == []
    shown[0]["records"][0]["model_sha256"] = "other"
    name = shown[0]["records"][0]["name"]
    assert comparison.stale_examples(shown, loaded[0]) == [name]
    assert f"The examples of {name} show older weights" in app.describe(*loaded, shown)


def test_another_folder_is_not_replaced_by_examples(loaded, tmp_path):
    (tmp_path / "holiday.png").write_bytes(b"")
    with pytest.raises(FileExistsError, match="holds no examples.json but other files"):
        comparison.precompute(loaded[0], tmp_path)
    assert (tmp_path / "holiday.png").exists()


def test_examples_are_replaced_once_all_are_drawn(loaded, examples, tmp_path, monkeypatch):
    folder = tmp_path / "examples"
    shutil.copytree(examples, folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    monkeypatch.setattr(comparison, "EXAMPLE_PROMPTS", ("a tabby", ""))
    with pytest.raises(ValueError, match="prompt is empty"):
        comparison.precompute([model for model in loaded[0] if model.name == "twin"], folder)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_damaged_examples_are_named(examples, tmp_path):
    shutil.copytree(examples, tmp_path / "examples")
    (tmp_path / "examples" / "a-tabby" / "student-1step-0.png").unlink()
    with pytest.raises(ValueError, match="examples holds damaged examples: .*student-1step-0.png"):
        comparison.load_examples(tmp_path / "examples")


def test_missing_examples_are_no_error(tmp_path):
    assert comparison.load_examples(tmp_path) == []


def test_examples_without_a_model_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "CHECKPOINTS", tmp_path)
    with pytest.raises(ValueError, match="no checkpoint of .* could be loaded, so no example can be drawn"):
        app.main(["--precompute"])
