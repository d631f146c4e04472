"""Every tab in Chromium: at both widths, in light and dark, whole, within the screen, and open to all."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.app.conftest import open_tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TABS = ["Compare", "On your device"]
SCREENS = Path(__file__).parents[2] / "outputs" / "screens"
SERIOUS = ("serious", "critical")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("tab", TABS)
def test_a_tab_is_whole_and_open_to_all(address, visit, tab, width, scheme):
    visitor = visit(address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    visitor.page.get_by_role("heading", name="mobilediff").first.wait_for()
    open_tab(visitor, tab)
    visitor.page.wait_for_timeout(1000)  # an animation's end
    SCREENS.mkdir(parents=True, exist_ok=True)
    visitor.page.screenshot(path=SCREENS / f"{tab}-{width}-{scheme}.png".replace(" ", "-"), full_page=True)
    assert visitor.page.evaluate("document.scrollingElement.scrollWidth") <= width
    violations = Axe().run(visitor.page).response["violations"]
    serious = {violation["id"]: [node["html"] for node in violation["nodes"]] for violation in violations
               if violation["impact"] in SERIOUS}  # fmt: skip
    assert serious == {}
    assert visitor.errors == []
    assert visitor.hosts == {address.split("/")[2]}
