"""How far a sweep is, as values and on a terminal."""

import os
from io import StringIO

from rich.console import Console

from cotinterp.sweeps.local import MOST_ROWS, Follower, Standing, rich_standing, standings
from tests.sweeps.tiny import tiny


def test_work_is_begun_in_order_so_many_at_a_time():
    found = standings("abcde", frozenset({0, 2}), jobs=2)
    assert [run.state for run in found] == ["done", "running", "done", "running", "waiting"]
    assert [run.name for run in found] == list("abcde")
    assert [run.share for run in found] == [1.0, 0.0, 1.0, 0.0, 0.0]


def test_all_done():
    assert {run.state for run in standings("ab", frozenset({0, 1}), jobs=3)} == {"done"}


def test_the_terminal_shows_the_whole_and_what_is_under_way():
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with rich_standing("train", console) as watch:
        watch([Standing("first", "running", 0.25, "loss 0.7"), Standing("second", "waiting")])
        watch([Standing("first", "running", 0.5, "loss 0.3"), Standing("second", "waiting")])
    shown = console.file.getvalue()
    assert "train" in shown
    assert "0 of 2" in shown
    assert "loss 0.3" in shown
    assert "second" not in shown


def test_what_is_over_leaves_the_terminal():
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with rich_standing("train", console) as watch:
        watch([Standing("first", "running", 0.5)])
        watch([Standing("first", "done", 1.0)])
        console.file.seek(0)
        console.file.truncate()
    assert "first" not in console.file.getvalue()
    assert "1 of 1" in console.file.getvalue()


def test_a_run_is_under_way_as_soon_as_its_metrics_grow(tmp_path):
    first, second = tiny(), tiny(seed=1)
    for spec in (first, second):
        (tmp_path / spec.slug).mkdir()
    old = tmp_path / first.slug / "metrics.jsonl"
    old.write_text('{"step": 5, "loss": 2.0}\n')
    follow = Follower((first, second), tmp_path)
    assert [run.state for run in follow(())] == ["waiting", "waiting"]
    old.write_text('{"step": 5, "loss": 2.0}\n{"step": 10, "loss": 1.5}\n{"st')
    os.utime(old, ns=(0, old.stat().st_mtime_ns + 1_000_000))
    assert follow(()) == [Standing(first.slug, "running", 0.5, "loss 1.5000"), Standing(second.slug, "waiting")]
    assert [run.state for run in follow({first.slug})] == ["done", "waiting"]


def test_only_so_many_runs_have_a_line():
    console = Console(file=StringIO(), force_terminal=True, width=120)
    runs = [Standing(f"run-{number:02}", "running", 0.5) for number in range(MOST_ROWS + 5)]
    with rich_standing("train", console) as watch:
        watch(runs)
        watch([Standing("run-00", "done", 1.0), *runs[1:]])
    shown = console.file.getvalue()
    assert f"run-{MOST_ROWS:02}" in shown, "it takes the line of the first one"
    assert f"run-{MOST_ROWS + 1:02}" not in shown
