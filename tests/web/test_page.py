"""The built page in Chromium: pictures, backends, what is kept, what is refused."""

import base64
import gzip
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.web.conftest import DIST, SOFTWARE_WEBGPU, PageVisit
from tests.web.fixtures import MODELS, NOUN, SEED, picture
from tests.web.site import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FIRST = MODELS[0]
ACCEPTED = 2  # of 255, between a picture here and PyTorch's
MAX_FIRST_LOAD = 12e6


def catalog() -> dict:
    return json.loads((DIST / "catalog.json").read_text(encoding="utf-8"))


def packed_path(name: str) -> str:
    """Find a file of the first model in the site by its path in the exported folder."""
    manifest = json.loads((DIST / f"models/{FIRST}/manifest.json").read_text(encoding="utf-8"))
    return next(f"files/{file['sha256']}.gzip" for file in manifest["files"] if file["path"] == name)


def canvas(model: str, place: int = 0) -> str:
    return f"[data-model='{model}'] .picture:nth-child({place + 1}) canvas"


def difference(drawn: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(drawn.astype(int) - expected.astype(int)).max())


@pytest.mark.parametrize(("typed", "read"), [(NOUN, f"a photo of a {NOUN}"), (f"a {NOUN}", f"a {NOUN}")])
def test_pictures_are_pytorchs(site, visit, typed, read):
    models = [model["name"] for model in catalog()["models"] if not model["controlled"]]
    visitor = visit(f"{site.url}#prompt={typed}&seed={SEED}&count=2&models={','.join(models)}")
    visitor.wait_for_pictures()
    assert FIRST in models
    for model in models:
        for place in range(2):
            expected = picture(model, read, SEED + place)
            assert difference(visitor.pixels(canvas(model, place)), expected) <= ACCEPTED, (model, place)
    assert visitor.errors == []
    assert visitor.hosts == {site.url.split("/")[2]}


def test_a_first_visit_stays_below_its_limit_and_a_second_one_downloads_nothing(site, visit):
    visitor = visit(site.url)
    visitor.wait_for_pictures()
    visitor.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    first = sum(bytes for _, bytes in site.sent)
    assert 9e6 < first < MAX_FIRST_LOAD
    site.sent.clear()
    visitor.page.reload()
    visitor.wait_for_pictures()
    assert sum(bytes for _, bytes in site.sent) == 0
    assert {path for path, _ in site.sent} <= {"sw.js"}  # asked whether it has changed
    assert visitor.errors == []


def test_it_works_without_a_connection_afterwards(built_page, visit):
    with serve(DIST) as site:
        visitor = visit(site.url)
        visitor.wait_for_pictures()
        visitor.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    visitor.page.goto(f"{site.url}#prompt=a {NOUN}&seed={SEED}")
    visitor.page.reload()
    visitor.wait_for_pictures()
    assert difference(visitor.pixels(canvas(FIRST)), picture(FIRST, f"a {NOUN}", SEED)) <= ACCEPTED


def test_it_works_below_a_path_and_without_isolation(built_page, visit):
    with serve(DIST, prefix="/device", isolated=False) as site:
        visitor = visit(f"{site.url}#seed={SEED}")
        visitor.wait_for_pictures()
        assert visitor.backend().startswith("WebAssembly, 1 thread:")
        assert "more threads need a cross-origin isolated page" in visitor.backend()
        assert difference(visitor.pixels(canvas(FIRST)), picture(FIRST, f"a photo of a {NOUN}", SEED)) <= ACCEPTED
        assert visitor.errors == []


def test_a_browser_without_a_graphics_processor_says_so(site, visit):
    visitor = visit(site.url)
    visitor.wait_for_pictures()
    assert re.match(r"WebAssembly, \d threads?: WebGPU found no graphics processor", visitor.backend())
    visitor.page.goto(f"{site.url}#backend=webgpu")
    visitor.page.wait_for_selector("#error:visible")
    assert visitor.error() == "WebGPU found no graphics processor"


def test_webgpu_draws_pytorchs_picture(site, launch):
    with launch(*SOFTWARE_WEBGPU) as browser:
        page = browser.new_page()
        page.goto(f"{site.url}#count=1&seed={SEED}&backend=webgpu")
        page.wait_for_selector("#copy-result:enabled, #error:visible", timeout=240_000)
        assert page.text_content("#backend") == "WebGPU: its test picture is PyTorch’s."


def damage(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 255]) + content[half + 1 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "image.onnx is damaged or was cut off"),
        (lambda content: content[:-1000], "image.onnx is damaged or was cut off"),
        (lambda content: gzip.compress(b"another"), "image.onnx is damaged: it is not the file that the manifest"),
        (lambda content: None, "image.onnx is missing on the server (HTTP 404)"),
    ],
    ids=["a flipped byte", "truncated", "another file", "missing"],
)
def test_a_file_that_is_not_right_is_refused_until_it_is(site, visit, change, message):
    path = packed_path("image.onnx")
    site.replaced[path] = change((DIST / path).read_bytes())
    visitor = visit(site.url)
    visitor.page.wait_for_selector("#error:visible")
    assert message in visitor.error()
    assert visitor.page.is_disabled("#draw")
    site.replaced.clear()
    visitor.page.click("#retry")
    visitor.wait_for_pictures()


def test_a_page_that_cannot_be_kept_still_draws(site, visit):
    site.replaced[packed_path("text_encoder.onnx")] = None
    visitor = visit(site.url)
    visitor.page.wait_for_selector("#error:visible")
    assert visitor.error() == "text_encoder.onnx is missing on the server (HTTP 404)"
    assert visitor.page.is_hidden("#retry")
    visitor.page.click("#draw")
    visitor.page.wait_for_selector("#error", state="hidden")


def test_a_manifest_of_another_version_is_refused(site, visit):
    path = f"models/{FIRST}/manifest.json"
    manifest = json.loads((DIST / path).read_text(encoding="utf-8"))
    site.replaced[path] = json.dumps(manifest | {"version": 2}).encode()
    visitor = visit(site.url)
    visitor.page.wait_for_selector("#error:visible")
    assert visitor.error() == f"{path} is of version 2; accepted is 1: export it again"


def test_a_backend_that_draws_another_picture_is_refused(site, visit):
    changed = catalog()
    selfTest = changed["models"][0]["selfTest"]
    pixels = bytearray(base64.b64decode(selfTest["pixels"]))
    pixels[100] ^= 128
    selfTest["pixels"] = base64.b64encode(pixels).decode()
    site.replaced["catalog.json"] = json.dumps(changed).encode()
    visitor = visit(site.url)
    visitor.page.wait_for_selector("#error:visible")
    assert f"WebAssembly draws the test picture of {FIRST} wrongly" in visitor.error()


def test_a_kept_file_that_was_damaged_is_downloaded_again(site, visit):
    visitor = visit(site.url)
    visitor.wait_for_pictures()
    path = packed_path("image.onnx")
    put = "url => caches.open('mobilediff-files').then(cache => cache.put(url, new Response('damaged')))"
    visitor.page.evaluate(put, site.url + path)
    site.sent.clear()
    visitor.page.reload()
    visitor.wait_for_pictures()
    assert path in {name for name, _ in site.sent}


@pytest.fixture(scope="module")
def opened(built_page, browser):
    """One visit that the tests below share."""
    with serve(DIST) as site:
        visitor = PageVisit(
            browser, f"{site.url}#seed={SEED}&count=4", permissions=["clipboard-read", "clipboard-write"]
        )
        visitor.wait_for_pictures()
        yield visitor
        visitor.context.close()


def seeds(visitor) -> list[int]:
    return [int(one.get_attribute("data-seed")) for one in visitor.page.query_selector_all(".picture")]


def wait_for_seeds(visitor, first: int, count: int) -> None:
    last = f".picture:nth-child({count})[data-seed='{first + count - 1}']"
    visitor.page.wait_for_selector(last)
    assert seeds(visitor) == list(range(first, first + count))


def test_pictures_are_redrawn_while_the_slider_moves(opened):
    opened.page.focus("#slider")
    for _ in range(5):
        opened.page.keyboard.press("ArrowRight")
    wait_for_seeds(opened, SEED + 5, 4)
    assert f"seed={SEED + 5}" in opened.page.url
    opened.page.uncheck("#live")
    opened.page.focus("#slider")
    opened.page.keyboard.press("ArrowRight")
    opened.page.wait_for_timeout(500)
    assert seeds(opened)[0] == SEED + 5
    opened.page.check("#live")


def test_enter_draws_and_a_prompt_that_is_too_long_is_refused(opened):
    opened.page.fill("#prompt", "cat " * 15)
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_selector("#error:visible")
    assert opened.error() == "The prompt has 17 tokens. Accepted are 16, start and end included: shorten it."
    opened.page.fill("#prompt", NOUN)
    opened.page.fill("#seed", str(SEED))
    opened.page.keyboard.press("Enter")
    wait_for_seeds(opened, SEED, 4)
    opened.page.wait_for_selector("#error", state="hidden")


@pytest.mark.parametrize(("name", "value"), [("seed", "4294967296"), ("seed", "1.5"), ("count", "17"), ("count", "0")])
def test_numbers_out_of_range_draw_nothing(opened, name, value):
    before = opened.page.input_value(f"#{name}")
    address = opened.page.url
    opened.page.fill(f"#{name}", value)
    opened.page.click("#draw")
    assert opened.page.eval_on_selector("#controls", "form => form.checkValidity()") is False
    assert opened.page.url == address
    opened.page.fill(f"#{name}", before)


def test_a_drawing_without_a_model_asks_for_one(opened):
    opened.page.uncheck(f"#models input[value='{FIRST}']")
    opened.page.click("#draw")
    opened.page.wait_for_selector("#error:visible")
    assert opened.error() == "Choose a model: none is ticked."
    opened.page.check(f"#models input[value='{FIRST}']")
    opened.page.click("#draw")
    opened.page.wait_for_selector("#error", state="hidden")


def test_a_changed_fragment_is_drawn(opened):
    opened.page.evaluate("location.hash = '#prompt=a+cat&seed=3&count=2'")
    wait_for_seeds(opened, 3, 2)
    assert opened.page.input_value("#prompt") == "a cat"
    assert difference(opened.pixels(canvas(FIRST)), picture(FIRST, "a cat", 3)) <= ACCEPTED
    opened.page.evaluate(f"location.hash = '#prompt={NOUN}&seed={SEED}&count=4'")
    wait_for_seeds(opened, SEED, 4)


def test_the_ends_of_the_way_are_the_two_nouns(opened):
    opened.page.fill("#seed", str(SEED))
    opened.page.select_option("#from", "cat")
    opened.page.select_option("#to", "ship")
    for share, noun in ((0, "cat"), (100, "ship")):
        opened.page.fill("#share", str(share))
        opened.page.wait_for_selector(f"#blend[aria-label='{share} percent from cat to ship']")
        assert difference(opened.pixels("#blend"), picture(FIRST, f"a photo of a {noun}", SEED)) <= ACCEPTED
    opened.page.click("#interpolate")
    opened.page.wait_for_selector("#strip[data-drawn='cat to ship']")
    end = opened.pixels("#strip canvas:nth-child(7)")
    assert difference(end, picture(FIRST, "a photo of a ship", SEED)) <= ACCEPTED


def test_pictures_are_saved_as_they_are_shown(opened):
    for selector, size in ((".picture:nth-child(2)", (256, 256)), (".head button", (1024, 256))):
        with opened.page.expect_download() as download:
            opened.page.click(selector)
        assert re.fullmatch(r"[a-z-]+-\d+\.png", download.value.suggested_filename)
        image = Image.open(io.BytesIO(download.value.path().read_bytes())).convert("RGB")
        assert image.size == size
        shown = opened.pixels(canvas(FIRST, 1))
        left = 0 if size == (256, 256) else 256
        np.testing.assert_array_equal(np.asarray(image)[::8, left : left + 256 : 8], shown)


def test_the_link_and_the_result_are_copied(opened):
    read = "navigator.clipboard.readText()"
    opened.page.click("#copy-link")
    opened.page.wait_for_selector("#copied:has-text('Copied the link')")
    assert re.search(r"#prompt=[^&]+&seed=\d+&count=4&models=" + FIRST, opened.page.evaluate(read))
    opened.page.click("#copy-result")
    opened.page.wait_for_selector("#copied:has-text('Copied the result')")
    line = opened.page.evaluate(read)
    assert re.match(
        rf"mobilediff: {FIRST} [\d.]+ ms \(median of \d+\); WebAssembly, \d threads?, onnxruntime-web", line
    )
    assert "Chrome" in line


def test_the_card_has_the_servers_time_beside_its_own(opened):
    server = catalog()["models"][0]["server"]
    text = opened.page.inner_text(f"[data-model='{FIRST}'] .times")
    assert re.search(r"[\d.]+ ms here\s+median of \d+", text)
    assert f"{server['medianMs']:.3g} ms on a server’s CPU" in text
    assert server["device"] in text


def test_there_is_nothing_to_sketch_on_without_a_control_network(opened):
    controlled = any(model["controlled"] for model in catalog()["models"])
    assert opened.page.is_visible("#sketching") == controlled


def test_everything_to_operate_has_a_name(opened):
    nameless = """() => [...document.querySelectorAll('input, select, button')].filter(one =>
        !one.labels?.length && !one.ariaLabel && !one.textContent.trim()).map(one => one.id)"""
    assert opened.page.evaluate(nameless) == []
    assert opened.page.eval_on_selector_all("button, input, select", "all => all.length") > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(opened, width, scheme):
    opened.page.set_viewport_size({"width": width, "height": 844})
    opened.page.emulate_media(color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    outside = """() => [...document.querySelectorAll('#controls *, .card *')].filter(one =>
        !one.closest('.chips') && one.getBoundingClientRect().right >
        one.closest('#controls, .card').getBoundingClientRect().right).map(one => one.outerHTML)"""
    assert opened.page.evaluate(outside) == []
    back = opened.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", back))) < 128) == (scheme == "dark")


def test_it_can_be_installed(opened):
    session = opened.context.new_cdp_session(opened.page)
    errors = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert {error["errorId"] for error in errors} <= {"in-incognito"}


def test_the_shared_visit_had_no_errors(opened):
    assert opened.errors == []
