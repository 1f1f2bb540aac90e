"""The pictures of the docs that a browser takes, and how fast the explorer answers: `make screenshots`.

Writes docs/images/explorer.png, explorer-edited.png and explorer-patched.png. Prints the 50th and 95th percentile of
its interactions as the browser measured them, from the click until all but the probes is drawn, and how many requests
left this machine. The report is pictured too, where `make reproduce` has written out/report.html.
"""

import re
import shutil
import threading
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, Route, sync_playwright

from cotinterp.explore.server import service
from cotinterp.explore.session import Explorer

IMAGES = Path(__file__).parent / "images"
MODELS = ("digit-sum-direct-L4-s0-93146b24", "digit-sum-cot-L4-s0-3be51c67")
REPORT = Path("out/report.html")
"""That of `make reproduce`; without one there are no pictures of it."""
REPORTS = {
    "report": {"viewport": {"width": 1366, "height": 900}},
    "report-dark": {"viewport": {"width": 1366, "height": 900}, "color_scheme": "dark"},
    "report-phone": {"viewport": {"width": 390, "height": 844}},
    "report-print": {"viewport": {"width": 794, "height": 1123}},
}
"""A4 is 794 by 1123 pixels of print."""
CLICKS = 40
"""Places that are looked at, and heads and edges that are cut, for the times."""


def main() -> None:
    """Takes the pictures."""
    served, elsewhere = service(Explorer.load(*MODELS), port=0), []
    thread = threading.Thread(target=served.run)
    thread.start()

    def route(request: Route) -> None:
        if request.request.url.startswith("http://127.0.0.1:"):
            request.continue_()
        else:
            elsewhere.append(request.request.url)
            request.abort()

    with sync_playwright() as playwright:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 1366, "height": 900})
        context.route(re.compile("."), route)
        page = context.new_page()
        page.goto(served.link)
        page.wait_for_selector("#explorer[data-turn]")
        page.fill("#operands", "3+4+5+6")
        turn(page, lambda: page.click("text=ask"))
        picture(page, "explorer")
        turn(page, lambda: page.locator('article.run:nth-of-type(2) .token[aria-label*="total 2"]').last.click())
        page.select_option("#state", label="15")
        turn(page, lambda: page.click("text=and let it go on"))
        page.wait_for_selector(".probes td")
        picture(page, "explorer-edited")
        turn(page, lambda: page.select_option('[aria-label="source run"]', "2"))
        turn(page, lambda: page.select_option('[aria-label="target run"]', "1"))
        page.select_option('[aria-label="site"]', label="resid_pre")
        turn(page, lambda: cell(page, "source", 0, 21).click())
        turn(page, lambda: cell(page, "target", 0, 21).click())
        page.wait_for_selector(".probes td")
        page.locator("section.grids").scroll_into_view_if_needed()
        page.screenshot(path=IMAGES / "explorer-patched.png", full_page=True)
        for click in range(CLICKS):
            place = 9 + click % 20
            turn(page, lambda place=place: page.locator(f"article.run:nth-of-type(4) .token >> nth={place}").click())
            if click % 4 == 0:
                turn(
                    page,
                    lambda click=click: page.click(f'[aria-label="knock out head {click % 3} of layer {click % 4}"]'),
                )
                turn(page, lambda: page.locator("article.run:nth-of-type(4) li button").last.click())
        if REPORT.is_file():
            for name, options in REPORTS.items():
                shot = browser.new_page(**options)
                shot.goto(REPORT.resolve().as_uri())
                if name == "report-print":
                    shot.emulate_media(media="print")
                shot.screenshot(path=IMAGES / f"{name}.png")
        times = page.evaluate("performance.getEntriesByName('interaction').map((entry) => entry.duration)")
        browser.close()
    served.stop()
    thread.join()
    p50, p95 = np.percentile(times, (50, 95))
    print(f"{len(times)} interactions: p50 {p50:.0f} ms, p95 {p95:.0f} ms")
    print(f"{len(elsewhere)} requests off this machine")


def turn(page: Page, act) -> None:
    """Does something, and waits until the page shows what came of it."""
    before = page.get_attribute("#explorer", "data-turn")
    act()
    page.wait_for_function("before => document.getElementById('explorer').dataset.turn !== before", arg=before)


def cell(page: Page, grid: str, layer: int, position: int):
    """One cell of the source or the target."""
    return page.locator(f'[data-grid={grid}] [aria-label*="L{layer}, position {position} ("]')


def picture(page: Page, name: str) -> None:
    """The window as it stands."""
    page.screenshot(path=IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
