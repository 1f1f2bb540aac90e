"""The explorer in a real browser: typed, edited, patched, cut and opened again; nothing is asked for elsewhere."""

import re
import threading
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, sync_playwright

from cotinterp.explore.server import service
from cotinterp.explore.session import Explorer
from tests.conftest import browser as chromium

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def link(explorer: Explorer) -> Iterator[str]:
    """A server of its own, and its link."""
    served = service(explorer, port=0)
    thread = threading.Thread(target=served.run)
    thread.start()
    yield served.link
    served.stop()
    thread.join()


class Visit:
    """A page and what it did: requests off this machine (aborted), and lines on its console."""

    def __init__(self, browser: Browser, **options: object) -> None:
        self.context = browser.new_context(**options)
        self.elsewhere: list[str] = []
        self.console: list[str] = []
        self.context.route(re.compile("."), self._route)

    def _route(self, route: Route) -> None:
        if route.request.url.startswith("http://127.0.0.1:"):
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def page(self, link: str) -> Page:
        page = self.context.new_page()
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.goto(link)
        page.wait_for_selector("#explorer[data-turn]", timeout=60_000)
        return page


def after(page: Page, act) -> None:
    """Does something and waits until the page shows what came of it."""
    before = page.get_attribute("#explorer", "data-turn")
    act()
    page.wait_for_function("before => document.getElementById('explorer').dataset.turn !== before", arg=before)


def verdicts(page: Page) -> list[str]:
    return page.locator(".verdict").all_text_contents()


def ask(page: Page, problem: str) -> None:
    page.fill("#operands", problem)
    after(page, lambda: page.click("text=ask"))


def token(page: Page, run: int, words: str):
    return page.locator("article.run").nth(run).locator(f'button.token[aria-label*="{words}"]').last


def cell(page: Page, grid: str, layer: int, position: int):
    return page.locator(f'[data-grid={grid}] button[aria-label*="L{layer}, position {position} ("]')


def test_a_session_from_a_typed_problem_to_a_link_that_opens_it_again(opened, link):
    visit = Visit(opened, viewport={"width": 1366, "height": 900})
    page = visit.page(link)
    ask(page, "3+4+5+6")
    assert verdicts(page) == ["18: right", "18: right"]

    # A written total is changed, and the rest is written anew.
    after(page, lambda: token(page, 1, "total 2").click())
    page.select_option("#state", label="15")
    after(page, lambda: page.click("text=and let it go on"))
    assert verdicts(page)[2].startswith("21: follows the change; a reader of this trace would say 21")

    # Where the next total is computed edges tell the run with the changed total from the one without.
    after(page, lambda: token(page, 2, "equals 3").click())
    page.wait_for_selector(".edges td")
    assert "->" in page.locator(".edges tbody td").first.inner_text()
    after(page, lambda: token(page, 2, "total 2").click())

    # The written total of run 3 is written into run 2 where it is read: the embedding carries it, the end does not.
    after(page, lambda: page.select_option('[aria-label="source run"]', "2"))
    after(page, lambda: page.select_option('[aria-label="target run"]', "1"))
    after(page, lambda: cell(page, "source", 3, 22).click())
    after(page, lambda: cell(page, "target", 3, 22).click())
    assert (
        page.locator("article.run").nth(3).locator("li").inner_text().startswith("resid_post of layer 3 at position 22")
    )
    moved = [
        cell(page, "target", layer, place).get_attribute("aria-label") for layer, place in ((3, 21), (2, 22), (3, 22))
    ]
    assert [not label.endswith("moved by 0.000") for label in moved] == [False, False, True]

    # A head is knocked out where it copies the operand.
    after(page, lambda: page.click('[aria-label="knock out head 3 of layer 0"]'))
    assert "head L0H3 knocked out" in page.locator("article.run").nth(3).inner_text()
    page.wait_for_selector(".probes td")

    # Attention by role: the shares of a head are those of its symbols together, one in all.
    after(page, lambda: page.select_option("#attention-to", label="each role"))
    shares = page.locator(".heat .share").all_text_contents()
    roles = page.locator(".columns .heat thead th").count() - 1
    assert len(shares) == 17 * roles
    assert all(abs(sum(map(float, shares[at : at + roles])) - 1) < 0.005 * roles for at in range(0, 17, roles))

    # What is shown is in the address; a second page of the same browser shows it.
    other = visit.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#explorer[data-turn]")
    assert verdicts(other) == verdicts(page)
    after(page, lambda: page.locator("article.run").nth(3).get_by_text("undo").last.click())
    assert "head L0H3 knocked out" not in page.locator("article.run").nth(3).inner_text()
    assert (visit.elsewhere, visit.console) == ([], [])


def test_tokens_are_spent_when_that_is_asked_for(opened, link):
    visit = Visit(opened, viewport={"width": 1366, "height": 900})
    page = visit.page(link)
    ask(page, "3+4+5+6")
    page.select_option("[data-search=run]", "1")
    page.fill("#search-temperature", "3")
    page.click(".search [type=submit]")
    page.wait_for_selector(".search .tree")
    assert "tokens written" in page.locator(".search .found").inner_text()
    marks = page.locator(".tree tbody td:nth-child(2)").all_text_contents()
    assert {*marks} == {"right", "wrong"}
    page.fill("#search-budget", "9999")
    page.evaluate("document.querySelector('.search form').noValidate = true")
    page.click(".search [type=submit]")
    page.wait_for_function("() => document.querySelector('.note').textContent.includes('less than or equal to 2000')")
    assert (visit.elsewhere, visit.console) == ([], [])


def test_what_is_wrong_is_said_and_what_was_there_stays(opened, link):
    visit = Visit(opened, viewport={"width": 1366, "height": 900})
    page = visit.page(link)
    ask(page, "3+4+5")
    page.fill("#operands", "3+x")
    page.click("text=ask")
    assert page.locator(".note").inner_text() == "x is no operand of digit-sum; there are 0 1 2 3 4 5 6 7 8 9"
    assert verdicts(page) == ["12: right", "12: right"]
    page.goto(re.sub("#.*", "#[[[0,[99],null,[]]],null,null,0,0,0]", page.url))
    page.reload()
    page.wait_for_selector("#explorer[data-turn]")
    assert "operands; this model can be asked about" in page.locator(".note").inner_text()


def test_a_phone_shows_it_without_sideways_scrolling(opened, link):
    visit = Visit(opened, viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = visit.page(link)
    ask(page, "3+4+5+6+7")
    after(page, lambda: token(page, 1, "total 3").click())
    page.wait_for_selector(".probes td")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, link, scheme):
    visit = Visit(opened, viewport={"width": 1366, "height": 900}, color_scheme=scheme)
    page = visit.page(link)
    ask(page, "3+4+5+6")
    after(page, lambda: token(page, 1, "total 2").click())
    page.wait_for_selector(".probes td")
    after(page, lambda: page.click('[aria-label="knock out head 3 of layer 0"]'))
    found = Axe().run(page).response["violations"]
    said = [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found]
    assert [one for one in said if one[1] in ("serious", "critical")] == []
