"""Open the built page in Chromium, or say why it cannot be opened."""

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.web.fixtures import WEB
from tests.web.site import Site, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DIST = WEB / "dist"
# A first picture takes seconds; minutes where other processes share the cores.
PATIENCE_MS = 120_000
SOFTWARE_WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")


def chromium_path() -> str:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    return path


@pytest.fixture(scope="session")
def built_page() -> None:
    """Leave the test out where the page cannot be opened."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements.txt")
    chromium_path()
    if not (DIST / "index.html").is_file():
        pytest.skip("web/dist is not built: npm ci && npm run build in web/")


@pytest.fixture(scope="module")  # its event loop runs until it ends, which other modules' tests must not meet
def launch(built_page) -> Iterator[Callable[..., "Browser"]]:
    """Start browsers with arguments; the sandbox needs rights that containers lack."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield lambda *arguments: playwright.chromium.launch(
            executable_path=chromium_path(), args=["--no-sandbox", *arguments]
        )


@pytest.fixture(scope="module")
def browser(launch):
    with launch() as started:
        yield started


@pytest.fixture
def site(built_page) -> Iterator[Site]:
    with serve(DIST) as server:
        yield server


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

    def wait_for_pictures(self) -> None:
        """Wait until every picture that was asked for is there."""
        self.page.wait_for_selector("#copy-result:enabled, #error:visible")
        assert self.error() is None
        self.page.wait_for_selector("html[data-offline=ready]")

    def error(self) -> str | None:
        """Return the error that the page shows."""
        return self.page.inner_text("#error-text") if self.page.is_visible("#error") else None

    def backend(self) -> str:
        return self.page.inner_text("#backend")

    def pixels(self, selector: str):
        """Read a canvas, uint8 [32, 32, 3]."""
        import numpy as np

        read = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 32, 32).data]"
        values = self.page.eval_on_selector(selector, read)
        return np.array(values, dtype=np.uint8).reshape(32, 32, 4)[..., :3]


@pytest.fixture
def visit(browser):
    """Open addresses as new visitors, each closed at the end."""
    visits = []

    def open_page(url: str, **options) -> Visit:
        visits.append(Visit(browser, url, **options))
        return visits[-1]

    yield open_page
    for one in visits:
        one.context.close()
