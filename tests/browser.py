"""Start Chromium, and visit pages with it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A first picture takes seconds; minutes where other processes share the cores.
PATIENCE_MS = 120_000


def chromium_path() -> str:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    return path


@pytest.fixture(scope="module")  # its event loop runs until it ends, which other modules' tests must not meet
def launch() -> Iterator[Callable[..., "Browser"]]:
    """Start browsers with arguments; the sandbox needs rights that containers lack."""
    playwright_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -r requirements.txt"
    )
    path = chromium_path()
    with playwright_api.sync_playwright() as playwright:
        yield lambda *arguments: playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])


@pytest.fixture(scope="module")
def browser(launch):
    with launch() as started:
        yield started


class Visit:
    """A visitor with an empty browser.

    Attributes:
        page: of Playwright.
        errors: that the page or its workers wrote to the console or did not catch.
        hosts: that were asked for anything.
    """

    def __init__(self, browser, url: str, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.context.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.goto(url)


V = TypeVar("V", bound=Visit)


@contextmanager
def visits(browser, kind: type[V]) -> Iterator[Callable[..., V]]:
    """Open addresses as new visitors, each closed at the end."""
    opened = []

    def open_page(url: str, **options) -> V:
        opened.append(kind(browser, url, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.context.close()
