"""The tab Edit as a visitor's program drives it."""

import base64
import io

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
CHOICES = ("a horse", 1, "student-1step", 0, 2)


@pytest.fixture(scope="module")
def demo(models):
    demo = app.build_app(models, [], [])
    demo.url = app.launch(demo, prevent_thread_lock=True, quiet=True)
    yield demo
    demo.close()


@pytest.fixture(scope="module")
def client(demo) -> Client:
    return Client(demo.url, verbose=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    left = Image.new("L", (32, 32))
    left.paste(255, (0, 0, 16, 32))
    paint = Image.new("RGBA", (384, 384))
    paint.paste((255, 0, 255, 178), (0, 0, 192, 384))
    images = {"picture": Image.fromarray(PIXELS), "mask": left, "paint": paint, "empty": Image.new("L", (32, 32))}
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    (folder / "text.png").write_text("<svg/>")
    return {file.stem: str(file) for file in folder.iterdir()}


def drawn(result: dict) -> list[np.ndarray]:
    data = [base64.b64decode(picture["image"].split(",")[1]) for picture in result["pictures"]]
    return [np.asarray(Image.open(io.BytesIO(content))) for content in data]


def test_programs_see_names_descriptions_and_files(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    names = {name: [one["parameter_name"] for one in endpoints[name]["parameters"]] for name in ("/repaint", "/vary")}
    assert names["/repaint"] == ["picture", "mask", "prompt", "strength", "model", "seed", "count"]
    assert names["/vary"] == ["picture", "prompt", "strength", "model", "seed", "count"]
    assert all(len(endpoints[name]["description"]) > 30 for name in ("/repaint", "/vary", "/new_picture"))
    assert not {"/show", "/edit_next"} & set(endpoints)


def test_a_picture_is_repainted_by_a_mask_and_by_paint_alike(client, files):
    picture, mask, paint = (handle_file(files[name]) for name in ("picture", "mask", "paint"))
    result, notes = client.predict(picture, mask, *CHOICES, api_name="/repaint")
    images = drawn(result)
    assert len(images) == 2 and " ms" in result["text"] and notes == ""
    assert all(np.array_equal(image[:, 16:], PIXELS[:, 16:]) for image in images)
    assert not np.array_equal(images[0], images[1])
    editor = {"background": None, "layers": [paint], "composite": None}
    by_paint, _ = client.predict(picture, editor, *CHOICES, api_name="/repaint")
    assert [np.array_equal(*pair) for pair in zip(images, drawn(by_paint), strict=True)] == [True, True]


def test_a_whole_picture_is_varied_and_a_new_one_is_a_file_to_edit(client, files):
    result, _ = client.predict(handle_file(files["picture"]), "a <b>zeppelin", 0.5, *CHOICES[2:], api_name="/vary")
    assert len(drawn(result)) == 2
    file = client.predict("a horse", 3, api_name="/new_picture")
    with Image.open(file) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))
    result, notes = client.predict(handle_file(file), "a <b>zeppelin", 0.5, *CHOICES[2:], api_name="/vary")
    assert len(drawn(result)) == 2 and "zeppelin" in notes and "<b>" not in notes


@pytest.mark.parametrize(
    ("picture", "mask", "message"),
    [
        (None, "mask", "There is no picture; upload one, or draw one."),
        ("picture", None, "There is no mask"),
        ("picture", "empty", "Nothing is masked"),
        ("text", "mask", "The picture 'text.png' is not a whole image in PNG or JPEG"),
        ("picture", "paint", "has mode RGBA and 1 frame"),
    ],
)
def test_bad_files_are_messages(client, files, picture, mask, message):
    given = [name and handle_file(files[name]) for name in (picture, mask)]
    with pytest.raises(AppError, match=message):
        client.predict(*given, *CHOICES, api_name="/repaint")


def test_a_strength_is_refused_by_name(client, files):
    with pytest.raises(AppError, match="The strength is 2; accepted is a number above 0, up to 1"):
        client.predict(handle_file(files["picture"]), "a horse", 2, *CHOICES[2:], api_name="/vary")


def test_the_editor_takes_in_no_strokes_beside_the_calls(demo):
    editor = next(block for block in demo.blocks.values() if block.elem_id == "mask")
    body = {
        "data": {"type": "layer", "index": 10**9, "id": "a"},
        "component_id": editor._id,
        "fn_name": "accept_blobs",
        "session_hash": "a",
    }
    answer = httpx.post(f"{demo.url}gradio_api/component_server", json=body)
    assert answer.status_code == 404
