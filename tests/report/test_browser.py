"""The report in a real browser, opened from disk: figures are drawn, nothing fails, nothing is asked for outside."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from html import escape
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cotinterp.report import ReportInputs, write_report

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=30000",
    "--window-size=1280,2000",
    "--enable-logging=stderr",
    "--dump-dom",
)
UNFOLD = """
addEventListener("load", () => dispatchEvent(new Event("beforeprint")));
"""
"""As printing does: everything is unfolded and drawn."""
PROBE = (
    UNFOLD
    + """
addEventListener("load", () => setTimeout(async () => {
  const facts = {};
  const heads = () => [...document.querySelectorAll("#attention-0 h4")];
  facts.overflow = document.documentElement.scrollWidth > innerWidth;
  const drawn = (plot) => plot.querySelector(".hm image, .point") !== null;
  facts.figures = [...document.querySelectorAll(".plotly-graph-div")].every(drawn);
  const table = document.querySelector("table.sortable");
  const values = () => [...table.tBodies[0].rows].map((row) => Number(row.children[1].dataset.value));
  table.querySelectorAll("button")[1].click();
  facts.descending = values().every((value, i, all) => i === 0 || all[i - 1] >= value);
  table.querySelectorAll("button")[1].click();
  facts.ascending = values().every((value, i, all) => i === 0 || all[i - 1] <= value);
  const list = document.querySelector("#attention-0 select");
  list.selectedIndex = 5;
  list.dispatchEvent(new Event("change"));
  await new Promise((done) => setTimeout(done, 500));
  facts.zoomed = [...document.querySelectorAll("#attention-0 h3")].at(-1).textContent;
  const canvas = [...document.querySelectorAll("#attention-0 canvas")].at(-1);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  facts.painted = new Set(pixels).size > 10;
  heads()[2].click();
  await new Promise((done) => setTimeout(done, 500));
  facts.listed = list.value;
  document.body.setAttribute("data-facts", JSON.stringify(facts));
}, 8000));
"""
)


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH, so the page was not opened")
    return found


@pytest.fixture(scope="module")
def report(inputs: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(inputs, tmp_path_factory.mktemp("report"))[0]


def opened(browser: str, page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's elements after it ran, and every line that it (or its security policy) put on the console."""
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def with_script(report: Path, script: str, name: str) -> Path:
    """A copy of the page that runs one more script at its end."""
    page = report.with_name(name)
    page.write_text(report.read_text().replace("</body>", f"<script>{script}</script></body>"))
    return page


def test_figures_are_drawn_and_the_console_stays_silent(browser: str, report: Path, tmp_path: Path) -> None:
    dom, console = opened(browser, with_script(report, UNFOLD, "unfolded.html"), tmp_path)
    assert console == []
    page = report.read_text()
    figures = page.count('class="plotly-graph-div"')
    assert figures > 10
    assert dom.count('class="plotly-graph-div js-plotly-plot"') == figures
    views = page.count('<div class="attention"')
    assert views == 4
    # Sixteen small patterns and the enlarged one.
    assert dom.count("<canvas") == views * 17


def test_tables_sort_and_heads_can_be_chosen_without_a_mouse(browser: str, report: Path, tmp_path: Path) -> None:
    dom, console = opened(browser, with_script(report, PROBE, "probed.html"), tmp_path)
    assert console == []
    facts = re.search(r'data-facts="([^"]*)"', dom)
    assert facts, "the probing script did not finish"
    expected = (
        '{"overflow":false,"figures":true,"descending":true,"ascending":true,'
        '"zoomed":"L1H1 Zoomed","painted":true,"listed":"2"}'
    )
    assert facts.group(1) == escape(expected)


@pytest.mark.parametrize(
    "script",
    [
        "new Image().src = 'http://example.invalid/x.png'",
        "fetch('https://example.invalid/')",
        "console.error('a figure failed')",
        "no.such.name",
    ],
)
def test_a_request_or_an_error_would_have_been_seen(browser: str, report: Path, tmp_path: Path, script: str) -> None:
    small = report.with_name("small.html")
    (policy,) = re.findall(r"<meta http-equiv[^>]*>", report.read_text())
    small.write_text(f"<!DOCTYPE html><html><head>{policy}</head><body></body></html>")
    _, console = opened(browser, with_script(small, script, "broken.html"), tmp_path)
    assert console


WINDOWS = {
    "laptop": {"viewport": {"width": 1366, "height": 900}, "color_scheme": "light"},
    "phone, dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


@pytest.fixture(scope="module")
def chromium(browser: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def visited(chromium: Browser, report: Path, window: str) -> Page:
    page = chromium.new_page(**WINDOWS[window])
    page.goto(report.as_uri())
    return page


def serious(page: Page) -> list[tuple[str, str]]:
    """What axe-core calls serious or critical, outside of what CircuitsVis draws: a table stands below it."""
    found = Axe().run(page, context={"exclude": [[".attention-plot"]]}).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("window", WINDOWS)
def test_everything_unfolded_is_accessible_and_no_wider_than_the_window(
    chromium: Browser, report: Path, window: str
) -> None:
    page = visited(chromium, report, window)
    assert page.evaluate("document.documentElement.scrollHeight / innerHeight") < 20
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("canvas")).to_have_count(4 * 17, timeout=30_000)
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".attention + .scroll table").count() == 4
    page.evaluate("document.querySelector('h1').style.color = 'color-mix(in srgb, currentcolor 10%, transparent)'")
    assert [name for name, _ in serious(page)] == ["color-contrast"]


def test_the_keyboard_opens_a_fold_and_saves_a_figure(chromium: Browser, report: Path) -> None:
    page = visited(chromium, report, "laptop")
    page.wait_for_selector(".js-plotly-plot")
    page.locator("#accuracy figcaption button").first.focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "accuracy-figure-1.svg"
    assert "K (number of operands)</text>" in Path(download.value.path()).read_text()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#accuracy summary')"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator("#accuracy details").first.get_attribute("open") is not None
