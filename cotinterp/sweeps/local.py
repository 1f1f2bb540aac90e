"""How far a sweep is: a value for whoever wants to know, and a live display of it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cotinterp.models.weights import CheckpointError
from cotinterp.results import output_folder
from cotinterp.sweeps.engine import Answer
from cotinterp.sweeps.processes import deal
from cotinterp.sweeps.single_run import THREADS as THREADS
from cotinterp.tasks import get_task
from cotinterp.training.checkpoints import is_finished
from cotinterp.training.loop import train
from cotinterp.training.progress import METRICS_FILE, last_metrics, read_metrics
from cotinterp.training.spec import RunSpec, check_same_spec
from cotinterp.transcripts.render import longest_transcript

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


@dataclass(frozen=True)
class Outcome:
    """What became of one run of a sweep.

    Attributes:
        status: `trained` now, `present` (it was finished before and was left alone), or `failed`.
        error: Type and text of what went wrong; empty otherwise.
        seconds: Wall time of this sweep's part of the training; 0 for what was present. A run that went on where an
            earlier process left off took longer in all: its metrics say how long.
        attempts: How often it was begun by this sweep.
    """

    spec: RunSpec
    directory: Path
    status: Literal["trained", "present", "failed"]
    error: str
    seconds: float
    attempts: int = 0


def train_all(
    specs: Sequence[RunSpec],
    *,
    root: Path,
    jobs: int = 2,
    device: str = "cpu",
    progress: Watch | None = None,
) -> tuple[Outcome, ...]:
    """Trains every spec under `root/<slug>`, `jobs` at a time on one CPU thread each; one outcome for each spec.

    Those with the longest transcripts begin first, which keeps all processes busy to the end. A finished run is left as
    it is; a run that was killed goes on where it was. A run that fails (a loss that is not finite, a
    directory that holds another run, a process that died) is listed and stops no other. The weights do not depend on
    `jobs` or on the order of the specs.

    Args:
        specs: Equal ones are trained once.
        root: Folder of the checkpoints; made where it is missing.
        jobs: Processes; 0 trains in this one, one after the other.
        progress: Told twice a second how far each run is; `rich_standing` shows it on a terminal.

    Raises:
        ValueError: Fewer jobs than 0. NotADirectoryError, PermissionError: `root` cannot be written.
    """
    root = output_folder(root)
    ordered = sorted(dict.fromkeys(specs), key=transcript_length, reverse=True)
    present = [spec for spec in ordered if _is_present(spec, root / spec.slug)]
    absent = [spec for spec in ordered if spec not in present]
    directories = [root / spec.slug for spec in absent]

    def watch(done: frozenset[int]) -> None:
        if progress is not None:
            there = [Standing(spec.slug, "done", 1.0) for spec in present]
            under_way = standings([spec.slug for spec in absent], done, jobs)
            progress([*there, *map(_with_metrics, under_way, absent, directories)])

    work = [(spec, directory, device) for spec, directory in zip(absent, directories, strict=True)]
    answers = deal(_train, work, jobs=jobs, watch=watch)
    found = {spec: Outcome(spec, root / spec.slug, "present", "", 0.0) for spec in present}
    found |= {spec: outcome_of(spec, root, answer) for spec, answer in zip(absent, answers, strict=True)}
    return tuple(found[spec] for spec in specs)


def transcript_length(spec: RunSpec) -> int:
    """Tokens of the longest transcript of a run: what its training takes grows with it."""
    return longest_transcript(get_task(spec.task), spec.k_max, spec.regime)


def _is_present(spec: RunSpec, directory: Path) -> bool:
    try:
        check_same_spec(directory, spec)
    except (OSError, CheckpointError):
        return False
    return is_finished(directory)


def outcome_of(spec: RunSpec, root: Path, answer: Answer[None]) -> Outcome:
    """What an answer says of a run that was not finished before."""
    status: Literal["trained", "failed"] = "failed" if answer.error else "trained"
    return Outcome(spec, root / spec.slug, status, answer.error, answer.seconds, answer.attempts)


def _train(work: tuple[RunSpec, Path, str]) -> None:
    spec, directory, device = work
    train(spec, directory=directory, device=device, threads=THREADS)


def _with_metrics(standing: Standing, spec: RunSpec, directory: Path) -> Standing:
    if standing.state == "done" or not (logged := read_metrics(directory / METRICS_FILE)):
        return standing
    last = logged[-1]
    return replace(standing, share=last["step"] / spec.optimizer.steps, note=f"loss {last['loss']:.4f}")
