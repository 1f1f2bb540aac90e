"""A sweep on a real Dask cluster on loopback: a scheduler and two workers as a user starts them, in processes of their
own. One worker is killed at work, then the scheduler."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from cotinterp.sweeps.executors import open_executor
from cotinterp.sweeps.pool import ExecutorLostError
from cotinterp.sweeps.sweep import run_sweep
from cotinterp.sweeps.table import sweep_table, write_sweep_table
from tests.sweeps.tiny import FIVE, grid_of, tiny

pytestmark = pytest.mark.slow

PRELOAD = "cotinterp.sweeps.single_run"
REPOSITORY = Path(__file__).parents[2]
LOSES_A_WORKER = grid_of(tiny(steps=200, seed=1), tiny(steps=200, seed=2))
LOSES_THE_SCHEDULER = grid_of(tiny(steps=200, seed=3), tiny(steps=200, seed=4))
GRIDS = {"five": FIVE, "worker": LOSES_A_WORKER, "scheduler": LOSES_THE_SCHEDULER}


class Cluster:
    """A scheduler and its workers, on ports that were free."""

    def __init__(self, folder, stack):
        self.file, self.stack = folder / "scheduler.json", stack
        self.scheduler = self.begin("scheduler", "--port", "0")
        until(lambda: self.file.exists() and self.file.read_text().strip().endswith("}"))
        self.address = json.loads(self.file.read_text())["address"].replace("tcp://", "dask://")
        alone = ["--nthreads", "1", "--no-nanny", "--local-directory", str(folder), "--preload", PRELOAD]
        self.workers = [self.begin("worker", *alone) for _ in range(2)]

    def begin(self, what, *options):
        shared = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(self.file)]
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *shared, *options]
        process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process


def until(happened):
    deadline = time.monotonic() + 600
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill_once_at_work(process, grid, root, runs):
    """Kills `process` as soon as so many runs of the grid have logged an update."""
    logs = [root / spec.slug / "metrics.jsonl" for spec in grid.specs]

    def kill():
        until(lambda: sum(log.exists() and log.stat().st_size > 0 for log in logs) >= runs)
        process.kill()

    threading.Thread(target=kill, daemon=True).start()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """What became of three sweeps: one undisturbed, one that lost a worker, one that lost the scheduler.

    The last two grids are carried out by a thread in `alone` too; `five` is that of the undisturbed one.
    """
    folder, found = tmp_path_factory.mktemp("cluster"), {}
    with ExitStack() as stack:
        cluster = Cluster(folder, stack)
        with open_executor(cluster.address, folder=folder) as executor:
            found["five"] = run_sweep(FIVE, folder / "five", executor)
            kill_once_at_work(cluster.workers[0], LOSES_A_WORKER, folder / "worker", 2)
            found["worker"] = run_sweep(LOSES_A_WORKER, folder / "worker", executor, retries=0)
            assert cluster.workers[0].wait(60), "a worker was killed"
            kill_once_at_work(cluster.scheduler, LOSES_THE_SCHEDULER, folder / "scheduler", 1)
            try:
                run_sweep(LOSES_THE_SCHEDULER, folder / "scheduler", executor)
            except ExecutorLostError as lost:
                found["lost"] = str(lost)
    with ThreadPoolExecutor(1) as thread:
        found["scheduler"] = run_sweep(LOSES_THE_SCHEDULER, folder / "scheduler", thread)
        for name in ("worker", "scheduler"):
            run_sweep(GRIDS[name], folder / "alone" / name, thread)
    return folder, found


def table(grid, root, path):
    return write_sweep_table(sweep_table(grid, root), path).read_bytes()


@pytest.mark.parametrize("name", GRIDS)
def test_the_table_is_that_of_a_sweep_on_one_machine_byte_for_byte(cluster, five, tmp_path, name):
    alone = five.root if name == "five" else cluster[0] / "alone" / name
    there, here = (table(GRIDS[name], root, tmp_path / "table.csv") for root in (cluster[0] / name, alone))
    assert there == here


def test_the_outcomes_are_those_of_a_sweep_on_one_machine(cluster):
    assert [outcome.status for outcome in cluster[1]["five"]] == ["trained"] * 3 + ["failed", "trained"]
    assert [outcome.attempts for outcome in cluster[1]["five"]] == [1, 1, 1, 2, 1]


def test_a_worker_that_is_killed_at_work_loses_nothing(cluster):
    assert [outcome.status for outcome in cluster[1]["worker"]] == ["trained"] * 2


def test_a_scheduler_that_is_killed_is_told_with_what_to_do_next(cluster):
    assert "of 2 runs are finished under" in cluster[1]["lost"]
    assert "give the same command: it goes on from there" in cluster[1]["lost"]
    assert [outcome.error for outcome in cluster[1]["scheduler"]] == ["", ""]
