"""Measure a first visit to the built page in headless Chromium: times from navigation, and bytes over the wire.

python -m tests.web.first_visit                    on one thread of WebAssembly
python -m tests.web.first_visit --isolated         on as many threads as the page takes where it is isolated
python -m tests.web.first_visit --backend webgpu   on a graphics processor in software: for its bytes, not its times
"""

import statistics
from collections.abc import Iterable

from mobilediff.command import command_parser, run_command
from tests.browser import PATIENCE_MS, chromium_path
from tests.web.conftest import DIST, SOFTWARE_WEBGPU
from tests.web.site import ENCODERS, serve

# worker: it runs; catalog: it is there; runtime, model: their files are there and right; opened: the graph can run;
# tested: the picture of the self-test is right; picture: the first one is shown. Page and worker have an origin of
# time of their own; the first mark of a name counts.
READ_MARKS = """() => Object.fromEntries(performance.getEntriesByType('mark').reverse()
    .map(({ name, startTime }) => [name, performance.timeOrigin + startTime]))"""


def first_visit(playwright, url: str, *flags: str) -> dict[str, float]:
    """Open the page in a new browser until all is kept, and return the milliseconds from navigation to each mark."""
    with playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox", *flags]) as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.wait_for_selector("html[data-offline=ready]")
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        start = page.evaluate("performance.timeOrigin")
        marks = page.workers[0].evaluate(READ_MARKS) | page.evaluate(READ_MARKS)
    return {name: time - start for name, time in sorted(marks.items(), key=lambda mark: mark[1])}


def summary(visits: list[dict[str, float]]) -> Iterable[str]:
    """Write a line for each mark: median, least and most of the visits."""
    for name in visits[0]:
        times = [visit[name] for visit in visits]
        yield f"{name:10} {statistics.median(times):7.0f} ms  [{min(times):.0f}, {max(times):.0f}]"


def main(argv: list[str] | None = None) -> None:
    """Measure visits and print them.

    Raises:
        ValueError: the number of visits is not positive, or the page is not built.
    """
    from playwright.sync_api import sync_playwright

    parser = command_parser("python -m tests.web.first_visit", __doc__)
    parser.add_argument("--runs", type=int, default=7, help="visits, after one that is not counted")
    parser.add_argument("--isolated", action="store_true", help="send the headers that allow several threads")
    parser.add_argument("--backend", choices=("wasm", "webgpu"), default="wasm")
    parser.add_argument("--encoding", choices=tuple(ENCODERS), default="gzip", help="of the text files")
    args = parser.parse_args(argv)
    if args.runs < 1:
        raise ValueError(f"--runs is {args.runs}; accepted: 1 or more")
    if not (DIST / "index.html").is_file():
        raise ValueError(f"{DIST} is not built: npm ci && npm run build in web/")
    visits, flags = [], SOFTWARE_WEBGPU if args.backend == "webgpu" else ()
    with sync_playwright() as playwright, serve(DIST, isolated=args.isolated, encoding=args.encoding) as site:
        for _ in range(1 + args.runs):
            site.sent.clear()
            visits.append(first_visit(playwright, f"{site.url}#backend={args.backend}&count=1", *flags))
        sent = sum(size for _, size in site.sent)
    print(*summary(visits[1:]), f"{args.encoding}: {sent / 1e6:.2f} MB over the wire", sep="\n")


if __name__ == "__main__":
    run_command(main)
