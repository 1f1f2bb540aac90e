"""What all tests share: a browser, where there is one. cotinterp is not imported here: its shapes are hooked first."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if browser() is None:
        config.hook.pytest_deselected(items=[item for item in items if "browser" in item.keywords])
        items[:] = [item for item in items if "browser" not in item.keywords]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if browser() is None:
        terminalreporter.section("browser tests did not run", yellow=True)
        terminalreporter.line(f"None of {', '.join(BROWSERS)} is on PATH; `make chromium` says what to do about it.")


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[Path], str]:
    """Opens a page as a reader would, from file:// and without a network, and returns the document that results."""

    def open_page(page: Path) -> str:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        flags += ["--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"]
        chromium = browser()
        assert chromium is not None, "mark tests that use this fixture with `browser`"
        command = [chromium, *flags, page.resolve().as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return open_page
