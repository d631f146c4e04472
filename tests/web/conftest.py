"""Open the built page in Chromium, or say why it cannot be opened."""

from collections.abc import Iterator

import pytest

from tests.browser import Visit, browser, launch, visits
from tests.web.fixtures import WEB
from tests.web.site import Site, serve

__all__ = ["browser", "launch"]

DIST = WEB / "dist"
SOFTWARE_WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")


@pytest.fixture(scope="session")
def built_page() -> None:
    """Leave the test out where the page is not built."""
    if not (DIST / "index.html").is_file():
        pytest.skip("web/dist is not built: npm ci && npm run build in web/")


@pytest.fixture
def site(built_page) -> Iterator[Site]:
    with serve(DIST) as server:
        yield server


class PageVisit(Visit):
    """A visitor of the built page."""

    def wait_for_pictures(self) -> None:
        """Wait until every picture that was asked for is there."""
        self.page.wait_for_selector("#copy-result:enabled, #error:visible")
        assert self.error() is None
        self.page.wait_for_selector("html[data-offline=ready]")

    def error(self) -> str | None:
        """Return the error that the page shows."""
        return self.page.inner_text("#error-text") if self.page.is_visible("#error") else None

    def backend(self) -> str:
        """Return the line that names the backend, which a download hides."""
        return self.page.text_content("#backend")

    def pixels(self, selector: str):
        """Read a canvas, uint8 [32, 32, 3]."""
        import numpy as np

        read = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 32, 32).data]"
        values = self.page.eval_on_selector(selector, read)
        return np.array(values, dtype=np.uint8).reshape(32, 32, 4)[..., :3]


@pytest.fixture
def visit(browser):
    with visits(browser, PageVisit) as open_page:
        yield open_page
