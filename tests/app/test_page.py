"""Every tab in Chromium: at both widths, in light and dark, whole, within the screen, and open to all."""

from pathlib import Path

import pytest

from tests.app.conftest import open_tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TABS = [
    ("Compare",),
    ("Explore", "Seeds"),
    ("Explore", "Nouns"),
    ("Explore", "Between seeds"),
    ("Explore", "Between prompts"),
    ("Explore", "Steps"),
    ("Explore", "On the way"),
    ("Draw",),
    ("Edit", "Repaint a part"),
    ("Edit", "Vary the whole picture"),
    ("Evaluate", "A model"),
    ("Evaluate", "My pictures"),
    ("Evaluate", "Damage"),
    ("Results",),
    ("On your device",),
    ("About",),
]
SCREENS = Path(__file__).parents[2] / "outputs" / "screens"
SERIOUS = ("serious", "critical")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_tab_is_whole_and_open_to_all(address, visit, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    SCREENS.mkdir(parents=True, exist_ok=True)
    visitor = visit(address, viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    problems = {}
    for tab in TABS:
        visitor.errors.clear()
        open_tab(visitor, *tab)
        name = " ".join(tab)
        if name == "Results":
            visitor.page.wait_for_selector("#result-plot .js-plotly-plot[data-listens]")
        visitor.page.wait_for_timeout(300)  # until layouts that follow the tab's width are done
        visitor.page.screenshot(path=SCREENS / f"{name}-{width}-{scheme}.png".replace(" ", "-"), full_page=True)
        found = {
            violation["id"]: [node["target"] + [node["html"]] for node in violation["nodes"]]
            for violation in axe.run(visitor.page).response["violations"]
            if violation["impact"] in SERIOUS
        }
        if (across := visitor.page.evaluate("document.scrollingElement.scrollWidth")) > width:
            found["overflow"] = across
        if visitor.errors:
            found["console"] = list(visitor.errors)
        if found:
            problems[name] = found
    assert problems == {}
    assert visitor.hosts - {""} == {address.split("/")[2]}
