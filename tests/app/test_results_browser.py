"""The tabs of results and models in Chromium: dots and lines that are chosen, sorting, both widths, no other host."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from mobilediff.demo import about, results
from mobilediff.demo.environment import RESULTS
from mobilediff.demo.service.reported import reported_records
from tests.app.conftest import open_tab
from tests.browser import Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = {"telephone": 390, "desk": 1280}


@pytest.fixture(params=WIDTHS)
def results_visit(visit, address, request) -> Iterator[Visit]:
    """A visitor at the plot, who wants nothing of another host and leaves nothing in the console."""
    width = WIDTHS[request.param]
    one = visit(address, viewport={"width": width, "height": 900}, has_touch=request.param == "telephone")
    open_tab(one, "Results")
    one.page.wait_for_selector("#result-plot .js-plotly-plot[data-listens]")
    yield one
    assert one.page.evaluate("document.documentElement.scrollWidth") == width
    assert one.hosts == {urlsplit(address).netloc}
    assert one.errors == []


def wait_for_row(visit: Visit, name: str) -> None:
    from playwright.sync_api import expect

    visit.page.wait_for_selector(f".result h3:text-is('{name}')")
    expect(visit.page.get_by_label("Row", exact=True)).to_have_value(name)
    expect(visit.page.locator("#result-command code")).to_contain_text(re.compile(f"--models {name}[ =]"))


def point_at(visit: Visit, name: str) -> None:
    """Touch the dot of a model, or move the mouse onto it."""
    place = """name => {
      const plot = document.querySelector("#result-plot .js-plotly-plot");
      plot.scrollIntoView({ block: "center" });
      const trace = plot.data.find(trace => trace.mode === "markers" && trace.customdata.includes(name));
      const point = trace.customdata.indexOf(name);
      const { xaxis, yaxis, _size } = plot._fullLayout;
      const box = plot.getBoundingClientRect();
      return [box.x + _size.l + xaxis.d2p(trace.x[point]), box.y + _size.t + yaxis.d2p(trace.y[point])];
    }"""
    x, y = visit.page.evaluate(place, name)
    if visit.page.evaluate("navigator.maxTouchPoints"):
        visit.page.touchscreen.tap(x, y)
    else:
        visit.page.mouse.move(x - 40, y)
        visit.page.mouse.move(x, y)


def test_a_dot_shows_its_pictures_and_its_command_also_after_another_plot(results_visit):
    wait_for_row(results_visit, "teacher")
    point_at(results_visit, "student-8step")
    wait_for_row(results_visit, "student-8step")
    pictures = results_visit.page.locator(".result .pictures img")
    assert pictures.count() == 6 * results.PICTURES
    assert pictures.first.evaluate("image => image.complete && image.naturalWidth") == 32
    results_visit.page.get_by_label("network calls an image").check()
    results_visit.page.wait_for_selector("#result-plot .xtitle:text-is('network calls an image')")
    results_visit.page.wait_for_selector("#result-plot .js-plotly-plot[data-listens]")
    point_at(results_visit, "teacher")
    wait_for_row(results_visit, "teacher")


def test_a_line_of_the_table_shows_its_row(results_visit):
    results_visit.page.get_by_role("gridcell", name="student-2step").first.click()
    wait_for_row(results_visit, "student-2step")
    assert results_visit.page.inner_text(".result p") == "No pictures of this row are kept."


def test_the_table_sorts_by_number_and_filters_by_name(results_visit):
    def wait_for_rows(first: str, count: int) -> None:
        there = """([first, count]) => {
          const rows = [...document.querySelectorAll("[role=row]")].slice(1);
          return rows.length === count && rows[0].innerText.split("\\n")[0] === first;
        }"""
        results_visit.page.wait_for_function(there, arg=[first, count])

    wait_for_rows("teacher", len(reported_records(RESULTS)))
    heading = results_visit.page.get_by_test_id("header-1").last
    heading.hover()
    heading.get_by_role("button").click()
    results_visit.page.get_by_role("menuitem", name="Sort descending").click()
    wait_for_rows("teacher-in-50", len(reported_records(RESULTS)))  # 1385.6, before 613.0
    results_visit.page.get_by_placeholder("Filter...").fill("dmd2")
    wait_for_rows("student-1step-dmd2", 1)


def test_the_models_stand_in_a_row_or_below_each_other(results_visit):
    open_tab(results_visit, "About")
    results_visit.page.wait_for_selector(".lineage > li")
    boxes = [item.bounding_box() for item in results_visit.page.locator(".lineage > li").all()]
    assert len(boxes) == len(about.LINEAGE)
    along, across = ("y", "x") if results_visit.page.viewport_size["width"] == WIDTHS["telephone"] else ("x", "y")
    assert [box[along] for box in boxes] == sorted({box[along] for box in boxes})
    assert len({box[across] for box in boxes}) == 1
