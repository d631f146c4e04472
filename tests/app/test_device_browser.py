"""The app's tab in Chromium: the page in its frame draws what the server draws."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

import app
from mobilediff.demo.service.models import Models
from tests.web.conftest import DIST
from tests.web.fixtures import ROOT
from tests.web.test_page import ACCEPTED, FIRST, difference

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def url(built_page, tmp_path_factory):
    """The app with the model that the page is tracked with."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / FIRST).symlink_to(ROOT / "checkpoints" / FIRST)
    models = Models(folder)
    models.all()
    demo = app.build_app(models, [], [], DIST)
    yield app.launch(demo, DIST, prevent_thread_lock=True, quiet=True)
    demo.close()


def pictures(page) -> list[np.ndarray]:
    """Read the server's pictures, uint8 [32, 32, 3]."""
    sources = [image.get_attribute("src") for image in page.query_selector_all(".results .card.done img")]
    contents = [base64.b64decode(source.split(",")[1]) for source in sources]
    return [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]


def test_both_sides_draw_the_same_pictures_with_the_choices_of_the_frame(url, visit):
    visitor = visit(url)
    page = visitor.page
    page.get_by_role("tab", name="On your device").click()
    frame = page.frame_locator("#device iframe")
    frame.locator("#copy-result:enabled").wait_for()
    frame.locator("#preference").select_option("wasm")
    frame.locator("#copy-result:enabled").wait_for()
    tab = page.get_by_role("tabpanel").filter(has=page.get_by_role("button", name="Draw on both"))
    tab.get_by_label("Seed").fill("11")
    page.get_by_role("button", name="Draw on both").click()
    frame.locator(".picture:nth-child(4)[data-seed='14']").wait_for()
    page.wait_for_selector(".results .card.done img")
    (inner,) = [one for one in page.frames if "/device/" in one.url]
    assert "backend=wasm" in inner.url and "seed=11" in inner.url
    read = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 32, 32).data]"
    drawn = [one.evaluate(read) for one in inner.query_selector_all(".picture canvas")]
    here = pictures(page)
    assert len(here) == len(drawn) == 4
    for values, expected in zip(drawn, here, strict=True):
        assert difference(np.array(values, dtype=np.uint8).reshape(32, 32, 4)[..., :3], expected) <= ACCEPTED
    assert visitor.hosts - {""} == {url.split("/")[2]}
    # The frame is as high as its page, so nothing of it is cut off.
    assert inner.evaluate("document.documentElement.scrollHeight - window.innerHeight") == 0
