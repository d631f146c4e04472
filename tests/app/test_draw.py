"""The tab Draw as a visitor's program drives it, and with a pen in Chromium."""

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageDraw

import app
from mobilediff.demo.draw import MISSING
from mobilediff.demo.environment import ROOT
from mobilediff.demo.service.drawing import png_uri
from mobilediff.demo.service.examples import load_examples
from mobilediff.demo.service.models import Models
from tests.app.conftest import open_tab
from tests.browser import Visit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(models):
    demo = app.build_app(models, [], [])
    yield Client(app.launch(demo, prevent_thread_lock=True, quiet=True), verbose=False)
    demo.close()


def circle(size: int = 320) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(image).ellipse(
        [size // 4, size // 4, 3 * size // 4, 3 * size // 4], outline="black", width=size // 20
    )
    return image


def test_programs_see_what_a_sketch_is(client):
    endpoint = client.view_api(return_format="dict")["named_endpoints"]["/draw"]
    names = [parameter["parameter_name"] for parameter in endpoint["parameters"]]
    assert names == ["sketch", "prompt", "seed", "scale", "lora", "weight"]
    assert len(endpoint["description"]) > 30
    assert "/surprise" not in client.view_api(return_format="dict")["named_endpoints"]


def test_a_plain_picture_and_its_data_uri_draw_the_same(client, tmp_path):
    circle().save(tmp_path / "circle.png")
    of_file, notes = client.predict(handle_file(tmp_path / "circle.png"), "a horse", 7, api_name="/draw")
    of_uri, _ = client.predict(png_uri(circle()), "a horse", 7, 1.0, "none", 1.0, api_name="/draw")
    assert of_file["pictures"] == of_uri["pictures"] and notes == ""
    assert [picture["caption"] for picture in of_file["pictures"]] == ["picture", "lines"]
    assert of_file["text"].startswith("1 image in ") and of_file["text"].endswith(" ms")
    styled, _ = client.predict(png_uri(circle()), "a horse", 7, 1.0, "pencil", 1.0, api_name="/draw")
    assert styled["pictures"][0] != of_uri["pictures"][0]


def test_a_note_that_quotes_the_prompt_is_text(client):
    _, notes = client.predict(png_uri(circle()), "a <b>zeppelin", 7, api_name="/draw")
    assert "zeppelin" in notes and "<b>" not in notes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('["SKETCH", "a horse", 0, NaN, "none", 1]', "control scale is nan; accepted is a number from 0 to 2"),
        ('["SKETCH", "a horse", 0, 1e309, "none", 1]', "control scale is inf; accepted"),
        ('["SKETCH", "a horse", 0, 1, "none", {}]', "weight of the LoRA is {}; accepted"),
        ('["SKETCH", "a horse", 0, 1, "crayon", 1]', "LoRA is 'crayon'; accepted are none, foreign, palette, pencil"),
        ('["SKETCH", "a horse", 0, 1, "foreign", 1]', "loras/foreign is left out"),
        ('["SKETCH", "a horse", -1, 1, "none", 1]', "seed is -1; accepted"),
        ('["https://example.org/x.png", "a horse", 0, 1, "none", 1]', "The sketch is 'https://example.org/x.png'"),
        ('["SKETCH", "a horse", 0]', "didn't receive enough input values (needed: 6, got: 3)"),
    ],
)
def test_what_a_raw_request_can_hold_is_refused_by_name(client, data, message):
    url, headers = client.src + "gradio_api/call/draw", {"content-type": "application/json"}
    content = f'{{"data": {data.replace("SKETCH", png_uri(circle(32)))}}}'
    event = httpx.post(url, content=content, headers=headers).json()["event_id"]
    answer = httpx.get(f"{url}/{event}", timeout=60).text
    assert answer.startswith("event: error") and message in answer


def test_a_large_upload_is_refused(client, tmp_path):
    circle(1200).save(tmp_path / "large.png")
    with pytest.raises(AppError, match="1200 x 1200 pixels; accepted are squares of 32 to 1,024 a side"):
        client.predict(handle_file(tmp_path / "large.png"), "a horse", 7, api_name="/draw")


def test_without_the_control_model_the_tab_says_so(tmp_path):
    demo = app.build_app(Models(tmp_path / "nowhere"), [], [])
    assert MISSING in [component["props"].get("value") for component in demo.config["components"]]
    assert "draw" not in [one["api_name"] for one in demo.config["dependencies"]]


def test_without_loras_there_is_no_choice_of_one(tmp_path, checkpoints):
    (tmp_path / "student-1step-control").symlink_to(checkpoints / "student-1step-control")
    demo = app.build_app(Models(tmp_path), [], [])
    labels = ("LoRA", "Weight of the LoRA")
    chosen = [one["props"] for one in demo.config["components"] if one["props"].get("label") in labels]
    assert [props["visible"] for props in chosen] == [False, False]


@pytest.fixture(params=[390, 1280])
def visitor(address, visit, request) -> Visit:
    visitor = visit(address, viewport={"width": request.param, "height": 900}, reduced_motion="reduce")
    open_tab(visitor, "Draw")
    visitor.page.locator(".sketch canvas").wait_for()
    return visitor


def stroke(visitor: Visit, *points: tuple[float, float]) -> None:
    """Draw with the mouse; points are in pixels of the sketch."""
    box = visitor.page.locator(".sketch canvas").bounding_box()
    mouse = visitor.page.mouse
    for i, (x, y) in enumerate(points):
        mouse.move(box["x"] + x / 32 * box["width"], box["y"] + y / 32 * box["height"])
        if i == 0:
            mouse.down()
    mouse.up()


def sketched(visitor: Visit) -> list[list[int]]:
    """The channels of the canvas, one list of RGB a pixel."""
    return visitor.page.evaluate("""() => {
      const data = document.querySelector(".sketch canvas").getContext("2d").getImageData(0, 0, 32, 32).data;
      return Array.from({ length: 1024 }, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
    }""")


@pytest.mark.browser
def test_strokes_draw_while_the_pen_moves_and_can_be_undone(visitor):
    page = visitor.page
    captions = page.locator(".sketched figcaption")
    box = page.locator(".sketch canvas").bounding_box()
    page.mouse.move(box["x"] + 8.5 / 32 * box["width"], box["y"] + 8.5 / 32 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 20.5 / 32 * box["width"], box["y"] + 8.5 / 32 * box["height"])
    captions.get_by_text("lines", exact=True).wait_for()  # before the pen is lifted
    page.mouse.up()
    black = [i for i, pixel in enumerate(sketched(visitor)) if pixel == [0, 0, 0]]
    assert black == [8 * 32 + x for x in range(8, 21)]

    page.get_by_role("button", name="Colour red").click()
    stroke(visitor, (9, 9), (14, 9))
    captions.get_by_text("colours", exact=True).wait_for()
    pixels = sketched(visitor)
    assert [pixels[8 * 32 + x] for x in (8, 20)] == [[0, 0, 0]] * 2  # colours stay below lines
    assert {tuple(pixels[y * 32 + x]) for x in range(8, 16) for y in range(9, 12)} == {(200, 50, 40)}
    page.get_by_role("button", name="Undo").click()
    captions.get_by_text("colours", exact=True).wait_for(state="detached")
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("The sketch is empty").first.wait_for()
    assert {tuple(pixel) for pixel in sketched(visitor)} == {(255, 255, 255)}
    page.get_by_role("button", name="Undo").click()
    captions.get_by_text("lines", exact=True).wait_for()
    assert visitor.errors == []


@pytest.mark.browser
def test_a_surprise_fills_canvas_and_prompt_and_is_drawn(visitor):
    visitor.page.get_by_role("button", name="Surprise me").click()
    visitor.page.locator(".sketched figcaption").get_by_text("lines", exact=True).wait_for()
    prompt = visitor.page.get_by_label("Prompt").locator("visible=true").input_value()
    assert prompt in [example["prompt"] for example in load_examples(ROOT / "examples")]
    assert sketched(visitor).count([0, 0, 0]) >= 60
    assert visitor.errors == []
