"""The report in a real browser: what is pointed at is named, by mouse and keys; on paper and without a script."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from orchestrator.report.page import write_report
from orchestrator.results.files import write_file
from orchestrator.results.shelf import SHELF
from orchestrator.store.store import Store
from testing.hosts import needed
from tests.report.test_shelf import SHELVED

pytestmark = pytest.mark.slow
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
TRIAL = "04-hyperprior-n8-teacher-hyperprior"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    needed(None if CHROMIUM else "chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def file(run_folder: Path) -> str:
    write_report(run_folder)
    return (run_folder / "report.html").as_uri()


def opened(browser: Browser, file: str, *, width: int = 1280, script: bool = True, dark: bool = False) -> Page:
    """The page, on which nothing was asked of a network and no error was raised."""
    size: ViewportSize = {"width": width, "height": 900}
    page = browser.new_context(
        viewport=size, java_script_enabled=script, color_scheme="dark" if dark else "light"
    ).new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: faults.append(request.url) if request.url != file else None)
    page.goto(file)
    if script:
        page.wait_for_selector("#chart-pareto .legend")
    assert faults == []
    return page


def test_a_trial_that_is_pointed_at_is_named(browser: Browser, file: str) -> None:
    page = opened(browser, file)
    chart = page.locator("#chart-pareto")
    chart.scroll_into_view_if_needed()
    traces = chart.locator(".scatterlayer .trace")
    front = traces.nth(traces.count() - 1)
    front.locator("path.point").first.hover(force=True)
    page.wait_for_selector("#chart-pareto .hoverlayer .hovertext")
    assert not page.locator("[data-title*=loud]").count() and page.locator("[data-title^=Zoom]").count()  # no upload
    said = chart.locator(".hoverlayer .hovertext").text_content() or ""
    assert TRIAL in said and "+142.75 %" in said
    assert TRIAL in chart.locator(".reading").inner_text()


def test_marks_are_reached_by_keys(browser: Browser, file: str) -> None:
    page = opened(browser, file)
    chart = page.locator("#chart-rate-distortion")
    chart.locator(".live").focus()
    reading = chart.locator(".reading")
    page.keyboard.press("ArrowRight")
    assert reading.inner_text().splitlines()[0] == "teacher-mean-scale (anchor, estimated)"
    page.keyboard.press("End")
    assert reading.inner_text().splitlines()[0] == "02-hyperprior-n24-control (best control, estimated)"
    page.keyboard.press("ArrowRight")
    assert reading.inner_text().splitlines()[1] == "rate point 0, lambda 0.01"
    assert chart.locator(".hoverlayer .hovertext").count() == 1


def test_another_cost_is_chosen_by_keys(browser: Browser, file: str) -> None:
    page = opened(browser, file)
    chart = page.locator("#chart-pareto")

    def below() -> str:
        return chart.locator(".xtitle").text_content() or ""

    assert below() == "kMACs per pixel, coding and decoding"
    chart.locator("select").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function(
        "document.querySelector('#chart-pareto .xtitle').textContent.startsWith('kMACs per pixel, enc')"
    )
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert chart.locator(".live").get_attribute("aria-label") == (
        "BD-rate against the anchor over kMACs per pixel, encoder: 12 trials, 3 on the front"
    )
    assert (
        chart.locator(".hoverlayer .hovertext").count() == 1
        and "kMACs per pixel" in chart.locator(".reading").inner_text()
    )
    page.reload()  # as the page of a running sweep does by itself
    page.wait_for_selector("#chart-pareto .legend")
    assert below() == "kMACs per pixel, encoder"


@pytest.mark.parametrize("width", [1280, 400])
def test_a_pair_of_a_shelf_is_named(browser: Browser, run_folder: Path, width: int) -> None:
    write_file(Store(run_folder), SHELF, SHELVED)
    write_report(run_folder)
    page = opened(browser, (run_folder / "report.html").as_uri(), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    chart = page.locator("#chart-shelf")
    shown = chart.locator(".bartext").all_text_contents()
    assert sorted(shown) == sorted(["+58.0", "+41.0", "+24.5", "-", "+30.0", "+12.0", "+30.0", "+12.0"])
    chart.scroll_into_view_if_needed()
    chart.locator(".barlayer .point path").first.hover(force=True)
    page.wait_for_selector("#chart-shelf .hoverlayer .hovertext")
    label, reading = (
        chart.locator(".hoverlayer .hovertext").text_content() or "",
        chart.locator(".reading").inner_text(),
    )
    assert reading.splitlines()[:2] == [
        "encoder n8 with decoder n8",
        "BD-rate +58.0 %; predicted, as the sum of the halves', +60.0 %",
    ]
    assert "encoder n8 with decoder n8" in label and ("+60.0" in label) == (width == 1280)
    chart.locator(".live").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert chart.locator(".reading").inner_text().startswith("encoder n8 with decoder n16")


def test_it_is_drawn_in_a_frame_that_may_not_store_anything(browser: Browser, file: str, run_folder: Path) -> None:
    """As MLflow shows an artifact."""
    outer = run_folder / "frame.html"
    outer.write_text(f'<iframe sandbox="allow-scripts" width="1200" height="800" src="{file}"></iframe>')
    page, faults = browser.new_page(), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(outer.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("#chart-pareto .legend").wait_for()
    frame.locator("#chart-pareto select").select_option(index=1)
    frame.locator("#chart-pareto .legend").wait_for()
    assert faults == []


def test_a_narrow_page_does_not_scroll_sideways(browser: Browser, file: str) -> None:
    page = opened(browser, file, width=400)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    widths = page.locator(".live").evaluate_all("charts => charts.map(chart => chart.querySelector('svg').clientWidth)")
    assert len(widths) == 4 and all(200 < width <= 400 for width in widths)


def test_a_dark_page_is_dark_and_its_charts_are_legible(browser: Browser, file: str) -> None:
    page = opened(browser, file, dark=True)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    letters = page.locator("#chart-pareto .xtick text").first.evaluate("tick => getComputedStyle(tick).fill")
    assert (ground, letters) == ("rgb(21, 24, 30)", "rgb(230, 233, 239)")


def test_without_a_script_there_are_pictures(browser: Browser, file: str) -> None:
    page = opened(browser, file, script=False)
    assert [picture.is_visible() for picture in page.locator(".still svg").all()] == [True] * 4
    assert not any(live.is_visible() for live in page.locator(".live").all())


def test_on_paper_all_columns_are_there_and_nothing_is_folded(browser: Browser, file: str) -> None:
    page = opened(browser, file)
    assert not page.locator("pre").first.is_visible() and not page.locator(".still svg").first.is_visible()
    page.set_viewport_size({"width": 1040, "height": 700})  # A4 on its side, less its margins
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(picture.is_visible() for picture in page.locator(".still svg").all())
    assert not any(live.is_visible() for live in page.locator(".live").all())
    assert all(folded.is_visible() for folded in page.locator("pre").all())
    ends = page.locator("table").evaluate_all("tables => tables.map(table => table.getBoundingClientRect().right)")
    assert len(ends) > 5 and max(ends) <= 1040
    assert page.pdf().startswith(b"%PDF")
