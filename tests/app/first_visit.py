"""Measure a first visit to the running app in Chromium: bytes over the wire by kind, and when the page can be read.

python -m tests.app.first_visit http://127.0.0.1:7860/
"""

import argparse
import json
import statistics
from collections import Counter
from urllib.parse import urlsplit

from playwright.sync_api import Browser, sync_playwright

from tests.web.conftest import chromium_path

VISITS = 5


def visit(browser: Browser, address: str) -> dict:
    """Open the page as a new visitor; times in ms from the start of the navigation."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    kinds, sent, hosts = {}, Counter(), set()
    session.on("Network.responseReceived", lambda event: kinds.update({event["requestId"]: event["type"]}))
    session.on(
        "Network.loadingFinished",
        lambda event: sent.update({kinds.get(event["requestId"], "Other"): int(event["encodedDataLength"])}),
    )
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    session.send("Network.enable")
    page.goto(address)
    page.get_by_role("button", name="Compare", exact=True).wait_for()
    useful = page.evaluate("performance.now()")
    (paint,) = page.evaluate("performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)")
    page.wait_for_timeout(3000)
    context.close()
    return {"first_paint_ms": paint, "useful_ms": useful, "bytes": dict(sent), "hosts": sorted(hosts)}


def main() -> None:
    """Visit the address, once to warm the server up, and print medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    address = parser.parse_args().address
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        visits = [visit(browser, address) for _ in range(VISITS + 1)][1:]
    medians = {name: statistics.median(one[name] for one in visits) for name in ("first_paint_ms", "useful_ms")}
    last = visits[-1]
    sent = {"kB": sum(last["bytes"].values()) / 1000, "bytes": last["bytes"], "hosts": last["hosts"]}
    print(json.dumps({"visits": VISITS, **medians, **sent}, indent=2))


if __name__ == "__main__":
    main()
