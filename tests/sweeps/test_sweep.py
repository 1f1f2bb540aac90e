"""Whole grids: nothing is done twice, nothing is lost, and the table is the same whoever did the work."""

import json
import math
import os
import shutil
import signal
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest

from cotinterp.sweeps.executors import open_executor
from cotinterp.sweeps.pool import NOT_STARTED, ExecutorLostError
from cotinterp.sweeps.single_run import FAILURE_FILE, ROOT_FILE
from cotinterp.sweeps.sweep import run_sweep, sweep_status, train_all
from cotinterp.sweeps.table import sweep_table, write_sweep_table
from cotinterp.training.checkpoints import CheckpointError
from cotinterp.training.loop import train
from cotinterp.training.spec import Distill
from tests.sweeps.tiny import DIVERGING, FIVE, grid_of, tiny

pytestmark = pytest.mark.slow


def by_thread(grid, root, **named):
    with ThreadPoolExecutor(1) as thread:
        return run_sweep(grid, root, thread, **named)


def table(grid, root, path):
    return write_sweep_table(sweep_table(grid, root), path).read_bytes()


def times(root):
    names = ("model.safetensors", "evaluation.json", "metrics.jsonl")
    return {path: path.stat().st_mtime_ns for name in names for path in root.glob(f"*/{name}")}


def test_there_is_an_outcome_for_each_run_in_the_order_of_the_grid(five):
    root, outcomes, _ = five
    assert [outcome.spec for outcome in outcomes] == list(FIVE.specs)
    assert [outcome.status for outcome in outcomes] == ["trained"] * 3 + ["failed", "trained"]
    assert [outcome.directory for outcome in outcomes] == [root / spec.slug for spec in FIVE.specs]
    assert outcomes[3].error.startswith("NonFiniteLossError: ")


def test_a_failure_is_tried_again_and_then_left_in_the_directory(five):
    root, outcomes, _ = five
    assert [outcome.attempts for outcome in outcomes] == [1, 1, 1, 2, 1]
    failure = json.loads((root / DIVERGING.slug / FAILURE_FILE).read_text())
    assert (failure["type"], failure["attempts"]) == ("NonFiniteLossError", 2)
    assert str(root) not in failure["text"]
    assert not list(root.glob(f"s3-*-s0-*/{FAILURE_FILE}"))


def test_the_last_progress_is_that_all_are_done(five):
    assert [run.name for run in five.progress[-1]] == [spec.slug for spec in FIVE.specs]
    assert {run.state for run in five.progress[-1]} == {"done"}


def test_what_is_finished_is_not_touched_and_what_failed_is_tried_again(five, tmp_path):
    root = shutil.copytree(five.root, tmp_path / "again")
    before = times(root)
    outcomes = by_thread(FIVE, root, retries=0)
    assert [outcome.status for outcome in outcomes] == ["present"] * 3 + ["failed", "present"]
    assert [outcome.attempts for outcome in outcomes] == [0, 0, 0, 1, 0]
    assert {path for path, then in times(root).items() if then != before[path]} <= set(
        (root / DIVERGING.slug).iterdir()
    )


def test_a_run_that_is_trained_again_is_noticed_by_the_test_above(five):
    root = five[0]
    before = times(root)
    (root / tiny().slug / "model.safetensors").unlink()
    assert by_thread(grid_of(tiny()), root)[0].status == "trained"
    assert times(root) != before


def test_the_table_is_the_same_byte_for_byte_for_any_number_of_processes(five, tmp_path):
    with open_executor("local:2", folder=tmp_path) as executor:
        run_sweep(FIVE, tmp_path / "local", executor)
    here, there = (
        table(FIVE, root, tmp_path / name) for root, name in ((five.root, "a.csv"), (tmp_path / "local", "b.csv"))
    )
    assert here == there


def test_a_process_that_is_killed_in_mid_run_loses_nothing(tmp_path):
    grid, killed = grid_of(tiny(steps=300), tiny(seed=1, steps=300)), threading.Event()
    metrics = tmp_path / "killed" / grid.specs[0].slug / "metrics.jsonl"
    with open_executor("local:1", folder=tmp_path) as executor:
        process = executor.submit(os.getpid).result()

        def kill():
            while not (metrics.exists() and metrics.stat().st_size):
                time.sleep(0.002)
            os.kill(process, signal.SIGKILL)
            killed.set()

        threading.Thread(target=kill, daemon=True).start()
        outcomes = run_sweep(grid, tmp_path / "killed", executor, retries=0)
        run_sweep(grid, tmp_path / "alone", executor)
    assert killed.is_set()
    assert [outcome.status for outcome in outcomes] == ["trained"] * 2
    assert sorted(outcome.attempts for outcome in outcomes) == [1, 2]
    assert table(grid, tmp_path / "killed", tmp_path / "a.csv") == table(grid, tmp_path / "alone", tmp_path / "b.csv")


def test_a_directory_that_holds_something_else_is_reported_and_not_touched(tmp_path):
    other, damaged, fine = tiny(seed=3), tiny(seed=4), tiny(seed=5)
    train(tiny(seed=2), directory=tmp_path / other.slug, device="cpu", threads=1)
    (tmp_path / damaged.slug).mkdir()
    (tmp_path / damaged.slug / "spec.json").write_text("{half")
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*")}
    outcomes = by_thread(grid_of(other, damaged, fine), tmp_path)
    assert [(outcome.status, outcome.attempts) for outcome in outcomes] == [
        ("failed", 0),
        ("failed", 0),
        ("trained", 1),
    ]
    assert "holds another run: seed is 2 there, 3 here" in outcomes[0].error
    assert "is no JSON" in outcomes[1].error
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.glob(f"*/{FAILURE_FILE}"))


def test_weights_that_are_damaged_are_a_failure_and_stay_as_they_are(tmp_path):
    by_thread(grid_of(tiny()), tmp_path)
    weights = tmp_path / tiny().slug / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    (outcome,) = by_thread(grid_of(tiny()), tmp_path, retries=0)
    assert (outcome.status, "is truncated" in outcome.error, len(weights.read_bytes())) == ("failed", True, 100)


def test_a_run_that_starts_from_another_waits_for_it(tmp_path):
    first = tiny("cot", seed=1)
    second = tiny("direct", start_from=first.slug)
    third = tiny("cot", seed=2, start_from=tiny("cot", seed=8).slug)
    outcomes = by_thread(grid_of(second, first), tmp_path)
    assert [outcome.status for outcome in outcomes] == ["trained", "trained"]
    with pytest.raises(CheckpointError, match="which is neither in the grid nor finished under .*: add that run"):
        by_thread(grid_of(third), tmp_path)
    assert by_thread(grid_of(tiny("direct", seed=1, start_from=first.slug)), tmp_path)[0].status == "trained"


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_run_is_trained_after_all_that_it_needs(jobs, tmp_path):
    """By the weights that it starts from and by its teacher, in whatever order they are given."""
    start, teacher = tiny("direct", seed=1), tiny("cot")
    student = tiny("direct", start_from=start.slug, distill=Distill(teacher=teacher.slug))
    specs = (student, start, teacher)
    assert [one.status for one in train_all(specs, root=tmp_path / "all", jobs=jobs)] == ["trained"] * 3
    if jobs:
        return
    assert [one.status for one in by_thread(grid_of(*specs), tmp_path)] == ["trained"] * 3
    (tmp_path / teacher.slug).rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match="is to be taught by .*, which is neither in the grid nor finished"):
        by_thread(grid_of(tiny("direct", seed=4, distill=Distill(teacher=teacher.slug))), tmp_path)
    other = tiny("cot", seed=5)
    by_thread(grid_of(other), tmp_path)
    (tmp_path / other.slug).rename(tmp_path / teacher.slug)
    (outcome,) = by_thread(grid_of(student), tmp_path)
    assert (outcome.status, "was begun with other weights" in outcome.error) == ("failed", True)


def test_a_run_that_starts_from_a_failure_fails_too(tmp_path):
    grid = grid_of(tiny("direct", start_from=DIVERGING.slug), DIVERGING)
    outcomes = by_thread(grid, tmp_path, retries=0)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert sweep_status(grid, tmp_path).counts["failed"] == 2
    assert outcomes[0].error == NOT_STARTED


def test_two_sweeps_at_once_under_one_root_both_end_well(tmp_path):
    grid = grid_of(tiny(steps=40), tiny(seed=1, steps=40))
    with ThreadPoolExecutor(2) as both:
        ends = [both.submit(by_thread, grid, tmp_path / "shared", retries=0) for _ in range(2)]
    assert {outcome.status for end in ends for outcome in end.result()} <= {"trained", "present"}
    by_thread(grid, tmp_path / "alone")
    assert table(grid, tmp_path / "shared", tmp_path / "a.csv") == table(grid, tmp_path / "alone", tmp_path / "b.csv")


class Lost(Executor):
    """Does the first piece of work and drops the rest, as a scheduler that is killed."""

    taken = 0

    def submit(self, work, *arguments):
        self.taken += 1
        future = Future()
        if self.taken == 1:
            future.set_result(work(*arguments))
        else:
            future.cancel()
        return future


def test_an_executor_that_is_gone_is_told_with_what_is_finished_and_the_same_call_goes_on(tmp_path):
    grid = grid_of(tiny("cot"), tiny(), tiny(seed=1))
    with pytest.raises(ExecutorLostError, match="1 of 3 runs are finished under .*the same command: it goes on"):
        run_sweep(grid, tmp_path, Lost())
    assert [outcome.status for outcome in by_thread(grid, tmp_path)] == ["present", "trained", "trained"]


def test_arguments_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="retries must be 0 or more, got -1"):
        by_thread(FIVE, tmp_path, retries=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        by_thread(FIVE, tmp_path / "file")


def test_the_root_is_marked_so_that_workers_know_it(five):
    assert len((five.root / ROOT_FILE).read_text().strip()) == 16


EACH_STATUS = grid_of(tiny(), tiny(seed=1), DIVERGING, tiny(seed=2))


def test_every_status_is_counted_and_every_run_has_a_row(tmp_path):
    with ThreadPoolExecutor(1) as thread:
        run_sweep(grid_of(tiny(), DIVERGING), tmp_path, thread, retries=0)
    train(tiny(seed=1), directory=tmp_path / tiny(seed=1).slug, device="cpu", threads=1)
    found = sweep_status(EACH_STATUS, tmp_path)
    assert found.counts == {"finished": 1, "unfinished": 1, "failed": 1, "absent": 1}
    rows = found.frame()
    assert list(rows["slug"]) == [spec.slug for spec in EACH_STATUS.specs]
    assert list(rows["status"]) == ["finished", "unfinished", "failed", "absent"]
    assert list(rows["step"]) == [20, 20, 0, 0]
    assert set(rows["steps"]) == {20}
    assert rows["loss"][0] > 0
    assert math.isnan(rows["loss"][3])
    assert rows["error"][2].startswith("NonFiniteLossError")


def test_before_anything_is_begun_all_are_absent(tmp_path):
    assert sweep_status(EACH_STATUS, tmp_path / "nowhere").counts["absent"] == len(EACH_STATUS.specs)
