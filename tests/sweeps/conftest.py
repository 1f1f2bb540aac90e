"""One small sweep that several files read; nobody writes into it."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from cotinterp.sweeps.sweep import run_sweep
from tests.sweeps.tiny import FIVE


class Swept(NamedTuple):
    root: object
    outcomes: tuple
    progress: list


@pytest.fixture(scope="session")
def five(tmp_path_factory):
    """`FIVE`, carried out by a thread: its folder, the outcomes, and every progress that was reported."""
    root, seen = tmp_path_factory.mktemp("five"), []
    with ThreadPoolExecutor(1) as thread:
        return Swept(root, run_sweep(FIVE, root, thread, progress=seen.append), seen)
