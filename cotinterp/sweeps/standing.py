"""How far a sweep is: a value for whoever wants to know, and a live display of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

State = Literal["waiting", "running", "done"]


@dataclass(frozen=True)
class Standing:
    """How far one run of a sweep is.

    Attributes:
        name: Its slug.
        state: `done` for whatever is over, failed ones too: the outcome says which.
        share: Of its work that is done, 0 to 1; 0 to the end where that is not known.
        note: What else is known, such as the last loss.
    """

    name: str
    state: State
    share: float = 0.0
    note: str = ""


Watch = Callable[[Sequence[Standing]], None]
"""Called twice a second with the standing of every run, always in the same order."""


def standings(names: Sequence[str], done: frozenset[int], jobs: int) -> tuple[Standing, ...]:
    """Of work that is begun in the order of `names`: the places in `done` are over, the next `jobs` are under way."""
    begun = [place for place in range(len(names)) if place not in done][:jobs]
    return tuple(
        Standing(name, "done", 1.0) if place in done else Standing(name, "running" if place in begun else "waiting")
        for place, name in enumerate(names)
    )


@contextmanager
def rich_standing(what: str, console: Console | None = None) -> Iterator[Watch]:
    """One line for the whole and one for each run under way, on standard error by default. Yields the callback."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    state = TextColumn("{task.fields[state]}")
    with Progress(*columns, TimeElapsedColumn(), state, console=console or Console(stderr=True)) as display:
        whole = display.add_task(what, total=None, state="")
        rows: dict[str, TaskID] = {}

        def show(standing: Sequence[Standing]) -> None:
            over = sum(run.state == "done" for run in standing)
            display.update(whole, completed=over, total=len(standing), state=f"{over} of {len(standing)}")
            for run in standing:
                if run.state == "running":
                    if run.name not in rows:
                        rows[run.name] = display.add_task(f"  {run.name}", total=1.0, state="")
                    display.update(rows[run.name], completed=run.share, state=run.note)
                elif run.state == "done" and run.name in rows:
                    display.remove_task(rows.pop(run.name))

        yield show
