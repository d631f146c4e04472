"""Each tab's main road in Chromium, on a telephone and a desk: what a visitor does, sees, stops and is told."""

import io
import re
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from mobilediff.demo.environment import ROOT
from mobilediff.demo.service.evaluation import MIN_SAMPLES
from mobilediff.demo.service.models import Models
from mobilediff.demo.service.uploads import MAX_UNPACKED, MIB
from tests.app.conftest import open_tab
from tests.browser import PATIENCE_MS, Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SCREENS = ROOT / "outputs" / "screens"
GOOD = sorted((ROOT / "examples" / "a-fire-truck").iterdir())


@pytest.fixture(scope="module", params=[390, 1280])
def shared(browser, address, request) -> Iterator[Visit]:
    """One visitor a width, since a page takes seconds to open."""
    one = Visit(browser, address, viewport={"width": request.param, "height": 900}, reduced_motion="reduce")
    yield one
    one.context.close()


@pytest.fixture
def visitor(shared, address) -> Iterator[Visit]:
    """A visitor who finds nothing in the console, and whom nothing sends to another host."""
    shared.errors.clear()
    yield shared
    assert shared.errors == []
    assert shared.hosts - {""} == {address.split("/")[2]}


class Gate:
    """Hold a model's network at its calls from one on, until the gate opens."""

    def __init__(self, forward: Callable, first: int):
        self.forward, self.first, self.calls, self.opened = forward, first, 0, threading.Event()

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls >= self.first:
            self.opened.wait(60)
        return self.forward(*args, **kwargs)


@pytest.fixture
def hold(models: Models, monkeypatch) -> Iterator[Callable[..., Gate]]:
    gates = []

    def hold_model(name: str, first: int = 1) -> Gate:
        unet = models.get(name).pipeline.unet
        gates.append(Gate(unet.forward, first))
        monkeypatch.setattr(unet, "forward", gates[-1])
        return gates[-1]

    yield hold_model
    for gate in gates:
        gate.opened.set()


def panel(visitor: Visit):
    """The innermost open tab."""
    return visitor.page.locator('[role="tabpanel"]:visible').last


def field(visitor: Visit, label: str):
    """A field by the start of its label, behind which a hint may stand."""
    return panel(visitor).get_by_label(re.compile(f"^\\s*{label}")).first


def press(visitor: Visit, name: str) -> None:
    panel(visitor).get_by_role("button", name=name, exact=True).click()


def choose(visitor: Visit, label: str, *names: str) -> None:
    """Check these boxes of a group, and no others."""
    group = panel(visitor).locator("fieldset, .block", has_text=label).get_by_role("checkbox")
    for box in group.all():
        name = box.evaluate("box => box.closest('label').innerText.trim()")
        box.set_checked(name in names)


def cards(visitor: Visit, status: str):
    return visitor.page.locator(f"#comparison .card.{status}")


def rows(visitor: Visit, label: str) -> list[list[str]]:
    """Read the cells of a table, a list each row; gradio draws those alone that are on the screen."""
    table = panel(visitor).locator(f'[aria-label="{label}"]').first
    table.scroll_into_view_if_needed()
    found = table.locator('[role="row"]:has([role="gridcell"])').all()
    return [[cell.strip() for cell in row.locator('[role="gridcell"]').all_inner_texts()] for row in found]


def wait_for_rows(visitor: Visit, label: str, enough: Callable[[list[list[str]]], bool]) -> list[list[str]]:
    end = time.monotonic() + PATIENCE_MS / 1000
    while not enough(found := rows(visitor, label)):
        assert time.monotonic() < end, found
        visitor.page.wait_for_timeout(100)
    return found


def wait_for_calls(visitor: Visit, gate: Gate) -> None:
    """Wait until a call is held at the gate."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while gate.calls < gate.first:
        assert time.monotonic() < end, gate.calls
        visitor.page.wait_for_timeout(50)


def test_a_comparison_comes_card_by_card_and_can_be_looked_at_and_kept(visitor, models, hold):
    open_tab(visitor, "Compare")
    choose(visitor, "Models", *models.names)
    gate = hold("teacher")
    press(visitor, "Compare")
    visitor.page.wait_for_selector("#comparison .card.running:has-text('teacher')")
    assert cards(visitor, "done").count() == len(models.names) - 1
    gate.opened.set()
    cards(visitor, "done").nth(len(models.names) - 1).wait_for()
    for name in ("student-1step", "teacher"):
        visitor.page.locator("#comparison h3 button", has_text=re.compile(f"^{name}$")).click()
    visitor.page.get_by_text("student-1step | teacher").first.wait_for()
    with visitor.page.expect_download() as download:
        press(visitor, "Download all")
    assert download.value.suggested_filename == "mobilediff.png"
    with Image.open(download.value.path()) as sheet:
        assert sheet.format == "PNG" and sheet.height > 5 * 32


def test_stop_ends_a_teachers_call(visitor, hold):
    open_tab(visitor, "Compare")
    choose(visitor, "Models", "teacher")
    gate = hold("teacher", first=3)
    press(visitor, "Compare")
    cards(visitor, "running").wait_for()
    wait_for_calls(visitor, gate)
    press(visitor, "Stop")
    visitor.page.wait_for_timeout(500)
    gate.opened.set()
    visitor.page.wait_for_timeout(500)
    assert 3 <= gate.calls < 10  # of fifty steps
    choose(visitor, "Models", "student-1step")
    press(visitor, "Compare")
    cards(visitor, "done").wait_for()
    assert cards(visitor, "done").count() == 1


def test_pictures_are_chosen_by_keys_and_named_after_the_answer(visitor, models):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    open_tab(visitor, "Compare")
    choose(visitor, "Models", "student-1step", "student-8step")
    fold = visitor.page.get_by_role("button", name="Which picture is better?")
    fold.click()
    panel(visitor).get_by_text("Answers are kept nowhere here.").wait_for()
    press(visitor, "Draw two pictures")
    question = visitor.page.locator('.arena:not(.answered) [role="status"]')
    question.get_by_text("Which is the better picture of").wait_for()
    pictures = visitor.page.locator(".arena:not(.answered) img")
    assert [one.get_attribute("alt") for one in pictures.all()] == ["Left picture", "Right picture"]
    first = [one.get_attribute("src") for one in pictures.all()]
    assert not visitor.page.locator(".arena", has_text="student-").count()
    left = panel(visitor).get_by_role("button", name="Left is better", exact=True)
    left.focus()
    visitor.page.keyboard.press("Enter")
    names = visitor.page.locator('.arena.answered [role="status"]')
    names.get_by_text("Left is better. Left was student-").wait_for()
    visitor.page.wait_for_function(
        "old => document.querySelector('.arena:not(.answered) img').src !== old", arg=first[0]
    )
    assert [one.get_attribute("src") for one in visitor.page.locator(".arena.answered img").all()] == first
    second = pictures.first.get_attribute("src")
    assert left.evaluate("button => button === document.activeElement")
    visitor.page.keyboard.press("Tab")
    visitor.page.keyboard.press("Space")  # on the right
    names.get_by_text("Right is better. Left was student-").wait_for()
    visitor.page.wait_for_function(
        "old => document.querySelector('.arena:not(.answered) img').src !== old", arg=second
    )
    visitor.page.wait_for_timeout(500)  # until nothing is dimmed any more
    width = visitor.page.viewport_size["width"]
    assert visitor.page.evaluate("document.scrollingElement.scrollWidth") <= width
    violations = axe.run(visitor.page).response["violations"]
    found = [one for one in violations if one["impact"] in ("serious", "critical")]
    assert [node["html"] for one in found for node in one["nodes"]] == []
    fold.scroll_into_view_if_needed()
    visitor.page.screenshot(path=SCREENS / f"Compare-arena-{width}.png", full_page=True)
    fold.click()
    choose(visitor, "Models", *models.names)


@pytest.mark.parametrize("tab", ["Compare", "Explore"])
def test_an_empty_prompt_is_a_message(visitor, tab):
    open_tab(visitor, *((tab, "Seeds") if tab == "Explore" else (tab,)))
    prompt = field(visitor, "Prompt")
    prompt.fill(" ")
    press(visitor, {"Compare": "Compare", "Explore": "Draw"}[tab])
    message = visitor.page.get_by_test_id("toast-body").filter(has_text="The prompt is empty.")
    message.wait_for()
    message.get_by_test_id("toast-close").click()
    message.wait_for(state="detached")
    prompt.fill("a fire truck")


def test_a_link_restores_the_choices_and_a_bad_one_says_why(visitor, visit, address):
    open_tab(visitor, "Compare")
    choose(visitor, "Models", "student", "teacher")
    field(visitor, "Prompt").fill("a red deer & <b>")
    field(visitor, "Seed").fill("17")
    field(visitor, "Seed").blur()
    press(visitor, "Copy link")
    visitor.page.wait_for_url("**seed=17**")
    again = visit(visitor.page.url, viewport=visitor.page.viewport_size)
    again.page.get_by_text("These choices are from the link").wait_for()
    assert field(again, "Prompt").input_value() == "a red deer & <b>"
    assert field(again, "Seed").input_value() == "17"
    checked = (
        panel(again)
        .locator('input[type="checkbox"]:checked')
        .evaluate_all("boxes => boxes.map(box => box.closest('label').innerText.trim())")
    )
    assert sorted(checked) == ["student", "teacher"]
    bad = visit(f"{address}?seed=<b>", viewport=visitor.page.viewport_size)
    bad.page.get_by_text("The link cannot be restored. The seed is '<b>'").wait_for()
    assert again.errors == bad.errors == []


@pytest.mark.parametrize(("tab", "count"), [("Seeds", 16), ("On the way", 51)])
def test_an_exploration_draws_a_grid(visitor, tab, count):
    open_tab(visitor, "Explore", tab)
    press(visitor, "Draw")
    pictures = panel(visitor).locator(".pictures figure img")
    pictures.nth(count - 1).wait_for()
    assert pictures.count() == count
    assert len(set(pictures.evaluate_all("images => images.map(image => image.src)"))) == count
    assert pictures.last.evaluate("image => image.complete && image.naturalWidth") == 32


def test_a_model_is_measured_with_progress_and_can_be_stopped(visitor, models, hold):
    open_tab(visitor, "Evaluate", "A model")
    choose(visitor, "Models to measure", models.names[0])
    choose(visitor, "Metrics", "Class accuracy")
    samples = panel(visitor).get_by_role("spinbutton").first
    samples.fill(str(MIN_SAMPLES))
    samples.blur()
    gate = hold(models.names[0], first=3)
    press(visitor, "Measure")
    bar = panel(visitor).get_by_role("progressbar", name="Samples drawn")
    visitor.page.wait_for_function("document.querySelector('.evaluation progress')?.value > 0")
    assert 0 < bar.evaluate("bar => bar.value") < 1
    wait_for_calls(visitor, gate)
    press(visitor, "Stop")
    visitor.page.wait_for_timeout(500)
    assert not panel(visitor).get_by_text("Stopped.").count(), "a batch is still drawn"
    gate.opened.set()
    panel(visitor).get_by_text("Stopped.").wait_for()
    press(visitor, "Measure")
    ((_, model, n, seed, *_),) = wait_for_rows(visitor, "Results of this visit; choose a row for its commands", bool)
    assert [model, n.replace(",", ""), seed] == [models.names[0], str(MIN_SAMPLES), "0"]
    panel(visitor).get_by_text("python -m eval.accuracy").wait_for()


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> dict:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.writestr(*member)
    return {"name": "mine.zip", "mimeType": "application/zip", "buffer": buffer.getvalue()}


def upload(visitor: Visit, file: dict) -> None:
    open_tab(visitor, "Evaluate", "My pictures")
    if (clear := panel(visitor).get_by_role("button", name="Clear")).count():
        clear.first.click()
    panel(visitor).locator('input[type="file"][accept^=".zip"]').set_input_files(file)
    panel(visitor).locator(".file-preview").wait_for()
    press(visitor, "Measure")


def test_a_zip_of_pictures_is_measured_and_its_hostile_members_are_named(visitor):
    link = zipfile.ZipInfo("truck/link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    good = [(f"truck/{file.name}", file.read_bytes()) for file in GOOD]
    upload(visitor, zipped(*good, ("../<b>up.png", b""), (link, b"/etc/passwd")))
    panel(visitor).get_by_text("Left out: 2.").wait_for()
    figures = {name: value for name, value, *_ in wait_for_rows(visitor, "Figures", bool)}
    assert float(figures["Class accuracy"].partition("%")[0]) > 50
    panel(visitor).get_by_text("'../<b>up.png' has a name that leads out of its folder").wait_for()
    panel(visitor).get_by_text("'truck/link.png' is a link or a device").wait_for()


def test_a_zip_that_unpacks_to_too_much_is_a_message(visitor):
    upload(visitor, zipped(("bomb.png", bytes(MAX_UNPACKED + 1))))
    message = visitor.page.get_by_test_id("toast-body").filter(has_text=f"unpacks to more than {MAX_UNPACKED // MIB}")
    message.wait_for()
    message.get_by_test_id("toast-close").click()


def test_damage_moves_the_figures_with_a_slider(visitor):
    open_tab(visitor, "Evaluate", "Damage")

    def move(label: str, value: str) -> list[str]:
        before = rows(visitor, "Figures")[:1]  # rows come on the screen one by one
        box = panel(visitor).get_by_role("spinbutton", name=f"number input for {label}")
        box.fill(value)
        box.blur()
        return wait_for_rows(visitor, "Figures", lambda found: found[:1] not in ([], before))[0]

    blurred, noised = move("Blur", "1"), move("Noise", "0.1")
    assert blurred[0] == noised[0] == "Fréchet distance to the training images"
    assert blurred[1] != blurred[2] == noised[2]
    assert noised[1] != blurred[1]


def picture_of(visitor: Visit) -> str:
    """The address of the picture that is edited, once there is one."""
    image = visitor.page.locator("#edited img")
    image.wait_for()
    return image.get_attribute("src")


def wait_for_another(visitor: Visit, old: str) -> str:
    visitor.page.wait_for_function("old => document.querySelector('#edited img')?.src !== old", arg=old)
    return picture_of(visitor)


def choose_model(visitor: Visit, name: str) -> None:
    field(visitor, "Model").click()
    visitor.page.get_by_role("option", name=name, exact=True).click()


def test_a_picture_is_drawn_masked_repainted_and_a_proposal_edited_next(visitor, models, hold):
    open_tab(visitor, "Edit", "Repaint a part")
    if (clear := visitor.page.locator("#edited").get_by_role("button", name="Remove Image")).count():
        clear.click()
    visitor.page.locator("#edited input[type=file]").set_input_files(GOOD[0])
    uploaded = picture_of(visitor)
    visitor.page.get_by_role("button", name="Draw a new picture").click()
    first = wait_for_another(visitor, uploaded)
    visitor.page.wait_for_timeout(1000)  # until the editor shows it
    canvas = visitor.page.locator("#mask canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visitor.page.mouse.move(x - 30, y)
    visitor.page.mouse.down()
    visitor.page.mouse.move(x + 30, y, steps=8)
    visitor.page.mouse.up()
    press(visitor, "Repaint")
    proposals = visitor.page.locator("#proposals .pictures button")
    proposals.nth(3).wait_for()
    proposals.nth(1).press("Enter")
    second = wait_for_another(visitor, first)
    repainted = proposals.locator("img").evaluate_all("images => images.map(image => image.src)")
    open_tab(visitor, "Edit", "Vary the whole picture")
    gate = hold("teacher")
    choose_model(visitor, "teacher")
    press(visitor, "Vary")
    wait_for_calls(visitor, gate)
    press(visitor, "Stop")
    visitor.page.wait_for_timeout(500)
    gate.opened.set()
    visitor.page.wait_for_timeout(500)
    assert 1 <= gate.calls < 10  # of fifty steps
    choose_model(visitor, "student-1step")
    press(visitor, "Vary")
    visitor.page.wait_for_function(
        "old => !old.includes(document.querySelector('#proposals .pictures img').src)", arg=repainted
    )
    assert proposals.count() == 4
    assert picture_of(visitor) == second


def test_a_picture_without_a_mask_is_a_message(visitor):
    open_tab(visitor, "Edit", "Repaint a part")
    visitor.page.get_by_role("button", name="Draw a new picture").click()
    picture_of(visitor)
    visitor.page.wait_for_timeout(1000)  # until the editor shows it, without paint
    press(visitor, "Repaint")
    message = visitor.page.get_by_test_id("toast-body").filter(has_text="Nothing is masked")
    message.wait_for()
    message.get_by_test_id("toast-close").click()
    message.wait_for(state="detached")
