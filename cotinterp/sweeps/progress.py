"""How far many runs are: a value for whoever asks, and a live display of it on the terminal."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich import progress as rich_progress
from rich.console import Console

from cotinterp.models.spec import CheckpointError
from cotinterp.training.progress import METRICS_FILE, last_metrics
from cotinterp.training.spec import RunSpec

MOST_ROWS = 16
"""Most running items that have a line of their own: more do not fit a terminal."""


@dataclass(frozen=True)
class Progress:
    """How far one run, or another named piece of work, is.

    Attributes:
        name: A run's slug.
        state: `done` for whatever is over, failed ones too.
        fraction: Of its work, 0 to 1; 0 to the end where that is not known.
        note: What else is known, such as the last loss.
    """

    name: str
    state: Literal["waiting", "running", "done"]
    fraction: float = 0.0
    note: str = ""


OnProgress = Callable[[Sequence[Progress]], None]
"""Called about twice a second with the progress of every run, always in the same order."""


def poll_in_order(names: Sequence[str], jobs: int, progress: OnProgress | None) -> Callable[[frozenset[int]], None]:
    """An `on_poll` for items that start in the order of `names`: the first `jobs` that are not done are running."""

    def on_poll(done: frozenset[int]) -> None:
        if progress is not None:
            running = [index for index in range(len(names)) if index not in done][: max(1, jobs)]
            progress(
                tuple(
                    Progress(name, "done", 1.0)
                    if index in done
                    else Progress(name, "running" if index in running else "waiting")
                    for index, name in enumerate(names)
                )
            )

    return on_poll


class MetricsProgress:
    """The progress of runs by their files alone: whoever trains them, on whatever machine that sees the folder.

    A run counts as running as soon as its metrics have grown since this was made. That is before its first logged
    update only where another process had started it.
    """

    def __init__(self, specs: Sequence[RunSpec], root: Path) -> None:
        self._steps = {spec.slug: spec.most_steps for spec in specs}
        self._paths = {slug: root / slug / METRICS_FILE for slug in self._steps}
        self._seen = {slug: _changed(path) for slug, path in self._paths.items()}
        self._known: dict[str, Progress] = {}

    def __call__(self, done: Collection[str]) -> list[Progress]:
        """The progress of every run, in their order; those in `done` are over, failed ones too."""
        return [Progress(slug, "done", 1.0) if slug in done else self._running(slug) for slug in self._steps]

    def _running(self, slug: str) -> Progress:
        changed = _changed(self._paths[slug])
        if changed != self._seen[slug]:
            self._seen[slug] = changed
            if last := _last_line(self._paths[slug]):
                fraction = last["step"] / self._steps[slug]
                self._known[slug] = Progress(slug, "running", fraction, f"loss {last['loss']:.4f}")
        return self._known.get(slug, Progress(slug, "waiting"))


def _last_line(path: Path) -> dict[str, int | float]:
    """Empty where the log is damaged: it is for the run's status to tell, not for a display."""
    try:
        return last_metrics(path)
    except CheckpointError:
        return {}


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def progress_bars(title: str, console: Console | None = None, *, transient: bool = False) -> Iterator[OnProgress]:
    """A bar for the whole and one for each of the first running items, on standard error. Yields the callback.

    Nothing is shown where that is neither a terminal nor a notebook. `transient` bars are gone when the block ends.
    """
    console = console or Console(stderr=True)
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.percentage:>3.0f}%"),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("{task.fields[state]}"),
    )
    # What is printed meanwhile goes above the bars on a terminal, and stays on standard output where that is a file.
    with rich_progress.Progress(
        *columns,
        console=console,
        transient=transient,
        redirect_stdout=sys.stdout.isatty(),
        disable=not (console.is_terminal or console.is_jupyter),
    ) as display:
        whole = display.add_task(title, total=None, state="")
        rows: dict[str, rich_progress.TaskID] = {}

        def show(items: Sequence[Progress]) -> None:
            done = sum(item.state == "done" for item in items)
            display.update(whole, completed=done, total=len(items), state=f"{done} of {len(items)}")
            for item in items:
                if item.state != "running" and item.name in rows:
                    display.remove_task(rows.pop(item.name))
            for item in items:
                if item.state == "running" and item.name not in rows and len(rows) < MOST_ROWS:
                    rows[item.name] = display.add_task(f"  {item.name}", total=1.0, state="")
                if item.name in rows:
                    display.update(rows[item.name], completed=item.fraction, state=item.note)

        yield show


@contextmanager
def progress_stages(
    title: str, names: Sequence[str], console: Console | None = None
) -> Iterator[Callable[[str], None]]:
    """Shows at which of the stages a piece of work is, and for how long, while the block runs; begins with the first.

    Yields what is called with the name of each following stage as it begins.
    """
    with progress_bars(title, console, transient=True) as show:

        def begin(name: str) -> None:
            at = names.index(name)
            show(
                [
                    Progress(each, "done" if number < at else "running" if number == at else "waiting")
                    for number, each in enumerate(names)
                ]
            )

        begin(names[0])
        yield begin
