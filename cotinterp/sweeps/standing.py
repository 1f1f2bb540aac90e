"""How far a sweep is: a value for whoever wants to know, and a live display of it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cotinterp.training.metrics import METRICS_FILE, last_metrics
from cotinterp.training.spec import RunSpec

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


MOST_ROWS = 16
"""Most runs under way that have a line of their own: more do not fit a terminal."""

Watch = Callable[[Sequence[Standing]], None]
"""Called twice a second with the standing of every run, always in the same order."""


def standings(names: Sequence[str], done: frozenset[int], jobs: int) -> tuple[Standing, ...]:
    """Of work that is begun in the order of `names`: the places in `done` are over, the next `jobs` are under way."""
    begun = [place for place in range(len(names)) if place not in done][:jobs]
    return tuple(
        Standing(name, "done", 1.0) if place in done else Standing(name, "running" if place in begun else "waiting")
        for place, name in enumerate(names)
    )


class Follower:
    """The standing of runs by their files alone: whoever trains them, and on whatever machine that sees the folder.

    A run counts as under way as soon as its metrics have grown since this was made. That is before its first logged
    update only where another process had begun it.
    """

    def __init__(self, specs: Sequence[RunSpec], root: Path) -> None:
        self._steps = {spec.slug: spec.optimizer.steps for spec in specs}
        self._paths = {slug: root / slug / METRICS_FILE for slug in self._steps}
        self._seen = {slug: _changed(path) for slug, path in self._paths.items()}
        self._known: dict[str, Standing] = {}

    def __call__(self, done: Collection[str]) -> list[Standing]:
        """The standing of every run, in their order; those in `done` are over, failed ones too."""
        return [Standing(slug, "done", 1.0) if slug in done else self._under_way(slug) for slug in self._steps]

    def _under_way(self, slug: str) -> Standing:
        changed = _changed(self._paths[slug])
        if changed != self._seen[slug]:
            self._seen[slug] = changed
            if last := last_metrics(self._paths[slug]):
                share = last["step"] / self._steps[slug]
                self._known[slug] = Standing(slug, "running", share, f"loss {last['loss']:.4f}")
        return self._known.get(slug, Standing(slug, "waiting"))


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def rich_standing(what: str, console: Console | None = None) -> Iterator[Watch]:
    """One line for the whole and one for each of the first runs under way, on standard error. Yields the callback."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    state = TextColumn("{task.fields[state]}")
    with Progress(*columns, TimeElapsedColumn(), state, console=console or Console(stderr=True)) as display:
        whole = display.add_task(what, total=None, state="")
        rows: dict[str, TaskID] = {}

        def show(standing: Sequence[Standing]) -> None:
            over = sum(run.state == "done" for run in standing)
            display.update(whole, completed=over, total=len(standing), state=f"{over} of {len(standing)}")
            for run in standing:
                if run.state != "running" and run.name in rows:
                    display.remove_task(rows.pop(run.name))
            for run in standing:
                if run.state == "running" and run.name not in rows and len(rows) < MOST_ROWS:
                    rows[run.name] = display.add_task(f"  {run.name}", total=1.0, state="")
                if run.name in rows:
                    display.update(rows[run.name], completed=run.share, state=run.note)

        yield show
