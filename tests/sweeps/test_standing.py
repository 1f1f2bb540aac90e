"""How far a sweep is, as values and on a terminal."""

from io import StringIO

from rich.console import Console

from cotinterp.sweeps.standing import Standing, rich_standing, standings


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
