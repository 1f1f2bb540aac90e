"""How far many runs are, as values and on a terminal."""

import os
from io import StringIO

import pytest
from rich.console import Console

from cotinterp.sweeps.progress import (
    MOST_ROWS,
    MetricsProgress,
    Progress,
    poll_in_order,
    progress_bars,
    progress_stages,
)
from cotinterp.training.progress import metrics_line, rich_progress
from tests.sweeps.tiny import tiny


def in_order(names, done, jobs):
    seen = []
    poll_in_order(names, jobs, seen.append)(frozenset(done))
    return seen[0]


def test_work_is_started_in_order_so_many_at_a_time():
    found = in_order("abcde", {0, 2}, jobs=2)
    assert [run.state for run in found] == ["done", "running", "done", "running", "waiting"]
    assert [run.name for run in found] == list("abcde")
    assert [run.fraction for run in found] == [1.0, 0.0, 1.0, 0.0, 0.0]


def test_all_done():
    assert {run.state for run in in_order("ab", {0, 1}, jobs=3)} == {"done"}


def test_the_terminal_shows_the_whole_and_what_is_running():
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with progress_bars("train", console) as show:
        show([Progress("first", "running", 0.25, "loss 0.7"), Progress("second", "waiting")])
        show([Progress("first", "running", 0.5, "loss 0.3"), Progress("second", "waiting")])
    shown = console.file.getvalue()
    assert "train" in shown
    assert "0 of 2" in shown
    assert "loss 0.3" in shown
    assert "second" not in shown


def test_what_is_over_leaves_the_terminal():
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with progress_bars("train", console) as show:
        show([Progress("first", "running", 0.5)])
        show([Progress("first", "done", 1.0)])
        console.file.seek(0)
        console.file.truncate()
    assert "first" not in console.file.getvalue()
    assert "1 of 1" in console.file.getvalue()


def test_a_run_is_running_as_soon_as_its_metrics_grow(tmp_path):
    first, second = tiny(), tiny(seed=1)
    for spec in (first, second):
        (tmp_path / spec.slug).mkdir()
    old = tmp_path / first.slug / "metrics.jsonl"
    lines = [metrics_line({"step": 5, "loss": 2.0}), metrics_line({"step": 10, "loss": 1.5})]
    old.write_text(lines[0])
    progress = MetricsProgress((first, second), tmp_path)
    assert [run.state for run in progress(())] == ["waiting", "waiting"]
    old.write_text("".join(lines) + '{"st')
    os.utime(old, ns=(0, old.stat().st_mtime_ns + 1_000_000))
    assert progress(()) == [Progress(first.slug, "running", 0.5, "loss 1.5000"), Progress(second.slug, "waiting")]
    assert [run.state for run in progress({first.slug})] == ["done", "waiting"]
    old.write_text(lines[1].replace("1.5", "1.4"))
    os.utime(old, ns=(0, old.stat().st_mtime_ns + 2_000_000))
    assert progress(())[0].note == "loss 1.5000", "a damaged log is told by the run's status, not by the display"


def test_only_so_many_runs_have_a_line():
    console = Console(file=StringIO(), force_terminal=True, width=120)
    runs = [Progress(f"run-{number:02}", "running", 0.5) for number in range(MOST_ROWS + 5)]
    with progress_bars("train", console) as show:
        show(runs)
        show([Progress("run-00", "done", 1.0), *runs[1:]])
    shown = console.file.getvalue()
    assert f"run-{MOST_ROWS:02}" in shown, "it takes the line of the first one"
    assert f"run-{MOST_ROWS + 1:02}" not in shown


def test_stages_are_done_in_order_and_gone_at_the_end():
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with progress_stages("evaluate", ("load", "measure", "write"), console) as begin:
        begin("measure")
        shown = console.file.getvalue()
        assert "1 of 3" in shown
        assert shown.rindex("  measure") > shown.rindex("  load")
        console.file.seek(0)
        console.file.truncate()
    assert "\x1b[2K" in console.file.getvalue().split("measure")[-1], "the lines are erased"


def only_stage(title, console):
    return progress_stages(title, ("load",), console)


@pytest.mark.parametrize("display", [rich_progress, progress_bars, only_stage])
def test_nothing_is_shown_where_there_is_no_terminal(display):
    console = Console(file=StringIO(), force_terminal=False)
    with display("title", console):
        pass
    assert console.file.getvalue() == ""
