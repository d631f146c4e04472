"""Serve the app on tiny checkpoints, and open it in Chromium."""

import re
from collections.abc import Iterator

import pytest

import app
from mobilediff.demo.work.examples import load_examples, precompute
from mobilediff.demo.work.models import Models
from tests.web.conftest import Visit, browser, chromium_path, launch, visit

__all__ = ["browser", "built_page", "launch", "visit"]


@pytest.fixture(scope="session")
def built_page() -> None:
    """Leave the test out where there is no browser."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements.txt")
    chromium_path()


@pytest.fixture(scope="module")
def address(checkpoints, tmp_path_factory) -> Iterator[str]:
    models = Models(checkpoints)
    models.all()
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mobilediff.demo.work.examples.EXAMPLE_PROMPTS", ("a fire truck", "a tabby"))
        precompute(models, folder)
    demo = app.build_app(models, [], load_examples(folder))
    yield app.launch(demo, prevent_thread_lock=True, quiet=True)
    demo.close()


def open_tab(visitor: Visit, name: str) -> None:
    """Open a tab, which stands behind a menu where the screen is narrow."""
    page, named = visitor.page, re.compile(f"^\\s*{name}\\s*$")
    tab = page.locator('button[role="tab"]:visible', has_text=named)
    menu = page.locator(".overflow-menu > button:visible")
    tab.or_(menu).first.wait_for()
    if tab.count():
        tab.first.click()
    else:
        menu.click()
        page.locator(".overflow-dropdown button", has_text=named).click()
