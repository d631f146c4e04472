"""The built page in Chromium with a tiny model that draws by a sketch."""

import gzip
import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from mobilediff.ondevice.folder import write_exported
from tests.tiny import tiny_control
from tests.web.conftest import DIST
from tests.web.fixtures import draw, self_test
from tests.web.site import Site, serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MODEL, SHA256 = "tiny-control", "0" * 64
NOUN, SEED = "cat", 3
ACCEPTED = 2  # of 255
PATIENCE = 60  # seconds


@pytest.fixture(scope="module")
def pipeline():
    return tiny_control()


@pytest.fixture(scope="module")
def site(pipeline, tmp_path_factory) -> Iterator[Site]:
    """The built page, whose catalogue has an export of the pipeline besides."""
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="the extra ondevice is not installed: pip install '.[ondevice]'")
    if not (DIST / "index.html").is_file():
        pytest.skip("web/dist is not built: npm ci && npm run build in web/")
    folder = tmp_path_factory.mktemp("web") / MODEL
    manifest = write_exported(pipeline, MODEL, SHA256, folder, "onnx", "fp32")
    catalog = json.loads((DIST / "catalog.json").read_text(encoding="utf-8"))
    test = self_test(pipeline, SHA256)
    del test["model_sha256"]
    catalog["models"] = [one for one in catalog["models"] if not one["controlled"]]
    catalog["models"].append({"name": MODEL, "steps": 1, "controlled": True, "selfTest": test, "server": None})
    with serve(DIST) as server:
        for file in manifest.files:
            packed = gzip.compress((folder / file.path).read_bytes())
            server.replaced[f"files/{file.sha256}.gzip"] = packed
            catalog["packedBytes"][file.sha256] = len(packed)
        server.replaced[f"models/{MODEL}/manifest.json"] = (folder / "manifest.json").read_bytes()
        server.replaced["catalog.json"] = json.dumps(catalog).encode()
        yield server


@pytest.fixture
def visitor(site, visit):
    """A visitor with a telephone, once the first pictures are there."""
    opened = visit(
        f"{site.url}#prompt={NOUN}&seed={SEED}&count=1", viewport={"width": 390, "height": 844}, has_touch=True
    )
    opened.wait_for_pictures()
    opened.page.locator("#sketch").scroll_into_view_if_needed()
    return opened


def stroke(visitor, *points: tuple[int, int]) -> None:
    """Move the pressed mouse over pixels of the sketch."""
    box, mouse = visitor.page.locator("#sketch").bounding_box(), visitor.page.mouse
    places = [(box["x"] + (x + 0.5) * box["width"] / 32, box["y"] + (y + 0.5) * box["height"] / 32) for x, y in points]
    mouse.move(*places[0])
    mouse.down()
    for place in places:
        mouse.move(*place)
    mouse.up()


def sketch(visitor) -> dict[str, Image.Image]:
    """Read what the sketch shows as a control pipeline takes it; every field has a pixel that no line covers."""
    shown = visitor.pixels("#sketch")
    lines = (shown == 0).all(axis=2)
    fields = shown.reshape(8, 4, 8, 4, 3).swapaxes(1, 2).reshape(8, 8, 16, 3)
    colors = np.array([[max(field.tolist(), key=sum) for field in row] for row in fields], dtype=np.uint8)
    found = {"image": Image.fromarray(255 * lines.astype(np.uint8))} if lines.any() else {}
    return found | ({"color_map": Image.fromarray(colors)} if (colors < 255).any() else {})


def wait_for_picture(visitor, pipeline, noun: str = NOUN, seed: int = SEED, scale: float = 1.0) -> None:
    """Wait until the newest picture is there: PyTorch's of what the sketch shows."""
    prompt, end, largest = f"a photo of a {noun}", time.monotonic() + PATIENCE, None
    expected = draw(pipeline, prompt, seed, **sketch(visitor), controlnet_conditioning_scale=scale)
    while time.monotonic() < end:
        assert visitor.error() is None
        largest = np.abs(visitor.pixels("#sketched").astype(int) - expected).max()
        if largest <= ACCEPTED:
            return
        time.sleep(0.1)
    pytest.fail(f"the picture differs from PyTorch's by {largest} of 255")


def test_each_stroke_gives_pytorchs_picture(visitor, pipeline):
    stroke(visitor, (4, 20), (16, 6), (28, 20), (4, 20))
    assert np.asarray(sketch(visitor)["image"])[20, 4:29].all()
    wait_for_picture(visitor, pipeline)
    visitor.page.click("#tools [aria-label='Sky']")
    stroke(visitor, (0, 1), (31, 1))
    assert sketch(visitor)["color_map"].getpixel((3, 0)) == (140, 190, 235)
    wait_for_picture(visitor, pipeline)
    visitor.page.click("#tools button:has-text('Eraser')")
    stroke(visitor, (4, 20), (28, 20))
    assert not np.asarray(sketch(visitor)["image"])[20].any()
    wait_for_picture(visitor, pipeline)
    visitor.page.fill("#strength", "50")
    wait_for_picture(visitor, pipeline, scale=0.5)
    assert visitor.errors == []


def test_colours_alone_are_a_sketch_and_none_draws_nothing(visitor, pipeline):
    visitor.page.click("#tools [aria-label='Green']")
    stroke(visitor, (0, 30), (31, 30))
    assert set(sketch(visitor)) == {"color_map"}
    wait_for_picture(visitor, pipeline)
    visitor.page.click("#clear")
    assert visitor.page.get_attribute("#sketched", "aria-label") == "Nothing drawn yet"
    assert sketch(visitor) == {} and visitor.page.is_disabled("#save-sketched")


def test_prompt_and_seed_are_those_of_the_page(visitor, pipeline):
    stroke(visitor, (8, 8), (24, 24))
    wait_for_picture(visitor, pipeline)
    visitor.page.fill("#prompt", "ship")
    visitor.page.fill("#seed", "11")
    visitor.page.click("#draw")
    wait_for_picture(visitor, pipeline, "ship", 11)
    assert visitor.page.get_attribute("#sketched", "aria-label") == "ship, seed 11, by the sketch"
    visitor.page.fill("#seed", "-1")
    stroke(visitor, (8, 24), (24, 8))
    visitor.page.wait_for_timeout(300)
    assert visitor.page.get_attribute("#sketched", "aria-label") == "ship, seed 11, by the sketch"


def test_a_finger_draws_and_does_not_scroll(visitor, pipeline):
    box, session = visitor.page.locator("#sketch").bounding_box(), visitor.context.new_cdp_session(visitor.page)
    for kind, share in (("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8), ("touchEnd", None)):
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] * (share or 0)}
        points = [] if share is None else [place]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert np.asarray(sketch(visitor)["image"])[7:25, 16].all()
    wait_for_picture(visitor, pipeline)
    assert visitor.page.locator("#sketch").bounding_box() == box


def test_keys_draw(visitor, pipeline):
    visitor.page.focus("#sketch")
    for key in ("Space", "ArrowRight", "Shift+ArrowDown", "Shift+ArrowDown"):
        visitor.page.keyboard.press(key)
    visitor.page.focus("#prompt")  # without the cursor
    lines = np.asarray(sketch(visitor)["image"])
    assert [*zip(*np.nonzero(lines), strict=True)] == [(16, 16), (16, 17), (17, 17), (18, 17)]
    wait_for_picture(visitor, pipeline)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_section_fits_and_everything_to_operate_has_a_name(visitor, width):
    visitor.page.set_viewport_size({"width": width, "height": 844})
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    outside = """() => [...document.querySelectorAll('#sketching *')].filter(one => one.getBoundingClientRect().right >
        document.querySelector('#sketching').getBoundingClientRect().right).map(one => one.outerHTML)"""
    assert visitor.page.evaluate(outside) == []
    nameless = """() => [...document.querySelectorAll('#sketching :is(input, button, canvas)')].filter(one =>
        !one.labels?.length && !one.ariaLabel && !one.textContent.trim()).map(one => one.id)"""
    assert visitor.page.evaluate(nameless) == []
