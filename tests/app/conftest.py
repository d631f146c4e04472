"""Serve the app on tiny checkpoints, and open it in Chromium."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
from mobilediff.demo.environment import ROOT
from mobilediff.demo.service import damaged
from mobilediff.demo.service.examples import load_examples
from mobilediff.demo.service.models import Models
from tests.browser import Visit, browser, launch, visits
from tests.tiny import tiny_sketching
from tests.web.conftest import built_page

__all__ = ["browser", "built_page", "launch"]


@pytest.fixture(scope="session")
def checkpoints(checkpoints, tmp_path_factory) -> Path:
    """The tiny checkpoints, and what the tab Draw needs."""
    return tiny_sketching(Path(shutil.copytree(checkpoints, tmp_path_factory.mktemp("app") / "checkpoints")))


@pytest.fixture(scope="session")
def models(checkpoints) -> Models:
    """All tiny models, loaded."""
    models = Models(checkpoints)
    models.all()
    return models


@pytest.fixture(scope="package")
def address(models) -> Iterator[str]:
    """Serve the tiny models beside the examples of the real ones; damage is measured on few pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MOBILEDIFF_DATA", raising=False)
        patch.setattr(damaged, "COUNT", 300)
        demo = app.build_app(models, [], load_examples(ROOT / "examples"))
        yield app.launch(demo, prevent_thread_lock=True, quiet=True)
        demo.close()


@pytest.fixture
def visit(browser):
    with visits(browser, Visit) as open_page:
        yield open_page


def open_tab(visitor: Visit, *names: str) -> None:
    """Open a tab, and one inside it; a tab stands behind a menu where the screen is narrow."""
    for depth, name in enumerate(names):
        named = re.compile(f"^\\s*{name}\\s*$")
        bar = visitor.page.locator(f"{'.tabs ' * depth}.tabs > .tab-wrapper:visible").nth(0)
        tab, menu = (
            bar.locator('button[role="tab"]:visible', has_text=named),
            bar.locator(".overflow-menu > button:visible"),
        )
        tab.or_(menu).first.wait_for()
        if tab.count():
            tab.first.click()
        else:
            menu.click()
            bar.locator(".overflow-dropdown button", has_text=named).click()
