"""Many runs trained and evaluated: finished ones are skipped, killed ones go on, failed ones are listed."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from cotinterp.models.weights import CheckpointError
from cotinterp.results import output_folder
from cotinterp.sweeps.engine import Answer, ExecutorLostError, Patience, carry_out
from cotinterp.sweeps.executors import open_executor
from cotinterp.sweeps.grid import Grid, read_grid
from cotinterp.sweeps.local import Follower, Outcome, Watch, outcome_of, rich_standing, transcript_length
from cotinterp.sweeps.single_run import (
    STATUSES,
    RunRecord,
    RunWork,
    Status,
    carry_run,
    is_evaluated,
    is_foreign,
    mark_root,
    read_record_of,
    write_failure,
)
from cotinterp.sweeps.table import collect, write_table
from cotinterp.training.checkpoints import STATE_FILE, is_finished, read_record
from cotinterp.training.spec import RunSpec


def run_sweep(
    grid: Grid,
    root: Path | str,
    executor: Executor,
    *,
    retries: int = 1,
    device: str = "cpu",
    progress: Watch | None = None,
) -> tuple[Outcome, ...]:
    """Trains and evaluates every run of the grid under `root/<slug>`; one outcome for each, in the grid's order.

    A run that is finished and evaluated is left as it is. One that was begun goes on from its last saved state,
    wherever it was begun, so the same call is what follows an interruption. Those with the longest transcripts begin
    first. Weights and evaluations depend on the spec alone: not on the executor, the number of its workers or the
    order. A run that another sweep is training under the same root is waited for.

    Args:
        executor: Open, such as `open_executor` yields it; for workers on other machines `root` must be on a file system
            that they share.
        retries: How often a run that failed is begun again. A run whose process or machine died is begun again
            regardless of this, as long as it saves something between deaths, and three times without.
        progress: Told how far each run is, twice a second or as often as the files of that many runs can be looked at.

    Returns:
        Outcomes; of those that failed, `failure.json` in the run's directory says what the outcome says. A directory
        that holds something else than the run is not touched: it is a failed outcome alone.

    Raises:
        ExecutorLostError: The executor is gone, such as a Dask scheduler that was killed; says what is finished.
        CheckpointError: A run is to start from one that is neither in the grid nor finished under `root`.
        ValueError: Fewer than 0 retries. NotADirectoryError, PermissionError: `root` cannot be written.
    """
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, got {retries}")
    root = output_folder(root).resolve()
    foreign = {spec: text for spec in grid.specs if (text := is_foreign(spec, root))}
    ours = [spec for spec in grid.specs if spec not in foreign]
    present = {spec for spec in ours if _is_present(spec, root, grid.problems_per_k)}
    left = sorted((spec for spec in ours if spec not in present), key=transcript_length, reverse=True)
    after = _starts(left, {spec.slug for spec in present}, root)
    token, here = mark_root(root), Path(os.getcwd())
    work = [RunWork(spec, root, token, here, grid.problems_per_k, device) for spec in left]
    follow = Follower(grid.specs, root)

    def settled(place: int, answer: Answer[None]) -> None:
        if answer.error:
            write_failure(work[place], answer.error, answer.attempts)

    def watch(done: frozenset[int]) -> None:
        if progress is not None:
            over = {left[place].slug for place in done} | {spec.slug for spec in (*present, *foreign)}
            progress(follow(over))

    def saved(place: int) -> int:
        return _saved_step(work[place].directory)

    patience = Patience(retries=retries)
    try:
        answers = carry_out(
            carry_run, work, executor, patience=patience, after=after, saved=saved, settled=settled, watch=watch
        )
    except ExecutorLostError as error:
        raise ExecutorLostError(_what_is_left(error, grid, root)) from error
    found = {spec: Outcome(spec, root / spec.slug, "failed", text, 0.0) for spec, text in foreign.items()}
    found |= {spec: Outcome(spec, root / spec.slug, "present", "", 0.0) for spec in present}
    found |= {spec: outcome_of(spec, root, answer) for spec, answer in zip(left, answers, strict=True)}
    return tuple(found[spec] for spec in grid.specs)


def _is_present(spec: RunSpec, root: Path, problems_per_k: int) -> bool:
    return read_record_of(spec, root, problems_per_k).status == "finished"


def _starts(left: Sequence[RunSpec], present: set[str], root: Path) -> dict[int, int]:
    """For each run that starts from another one of those that are left, the place of that one."""
    places = {spec.slug: place for place, spec in enumerate(left)}
    after = {}
    for place, spec in enumerate(left):
        if spec.start_from in places:
            after[place] = places[str(spec.start_from)]
        elif spec.start_from is not None and spec.start_from not in present and not is_finished(root / spec.start_from):
            raise CheckpointError(
                f"{spec.slug} is to start from {spec.start_from!r}, which is neither in the grid nor finished under "
                f"{root}: add that run to the grid, or correct start_from"
            )
    return after


def _saved_step(directory: Path) -> int:
    """Updates of a run that survive its process: those of its saved state, more than any where it is trained."""
    if is_finished(directory):
        return 2**62
    try:
        return read_record(directory / STATE_FILE).step
    except (CheckpointError, OSError):
        return 0


def _what_is_left(error: ExecutorLostError, grid: Grid, root: Path) -> str:
    finished = sum(
        is_finished(root / spec.slug) and is_evaluated(root / spec.slug, grid.problems_per_k) for spec in grid.specs
    )
    return (
        f"{error}: it was stopped, or the connection to it was lost. {finished} of {len(grid.specs)} runs are finished "
        f"under {root}; those that were under way have kept what they saved. Start it again, or take another executor, "
        "and give the same command: it goes on from there"
    )


@dataclass(frozen=True)
class SweepStatus:
    """The record of every run of a grid, in the grid's order."""

    records: tuple[RunRecord, ...]

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many runs are finished, unfinished, failed and absent."""
        return {status: sum(record.status == status for record in self.records) for status in STATUSES}

    def frame(self) -> pd.DataFrame:
        """One row for each run: slug, status, step (logged updates), steps (of the whole run), loss (last), error."""
        rows = [(x.spec.slug, x.status, x.step, x.spec.optimizer.steps, x.loss, x.error) for x in self.records]
        return pd.DataFrame(rows, columns=["slug", "status", "step", "steps", "loss", "error"])


def sweep_status(grid: Grid, root: Path | str) -> SweepStatus:
    """How far each run of the grid is under `root`; all are absent where there is no such folder yet."""
    root = Path(root).resolve()
    return SweepStatus(tuple(read_record_of(spec, root, grid.problems_per_k) for spec in grid.specs))


Say = Callable[[str], None]

JOBS_FOLDER = ".jobs"
LISTED = 20


def sweep_session(
    grid: Path | str,
    *,
    root: Path | str | None = None,
    executor: str = "local:2",
    retries: int = 1,
    device: str = "cpu",
    say: Say,
    console: Console | None = None,
) -> bool:
    """Carries out the grid in a file and says what became of it; False where a run failed.

    Args:
        root: Folder of the runs; out/sweeps/<name of the grid> by default.
        executor: As `open_executor` takes it.
        console: Where progress is shown; standard error by default.
    """
    planned = read_grid(grid)
    place = output_folder(root_of(planned, root))
    say(f"{planned.name}: {len(planned.specs)} runs under {place}, by {executor}")
    with (
        open_executor(executor, folder=place.resolve() / JOBS_FOLDER) as workers,
        rich_standing(planned.name, console) as progress,
    ):
        outcomes = run_sweep(planned, place, workers, retries=retries, device=device, progress=progress)
    counts = Counter(outcome.status for outcome in outcomes)
    say(f"{counts['trained']} finished now, {counts['present']} finished before, {counts['failed']} failed")
    for outcome in outcomes:
        if outcome.status == "failed":
            say(f"failed: {outcome.spec.slug}: {outcome.error}")
    return not counts["failed"]


def status_session(grid: Path | str, *, root: Path | str | None = None, say: Say) -> None:
    """Says how far the runs of the grid in a file are: counts, then every run that is begun and not finished."""
    planned = read_grid(grid)
    found = sweep_status(planned, place := root_of(planned, root))
    say(f"{planned.name} under {place}: " + ", ".join(f"{n} {status}" for status, n in found.counts.items()))
    frame = found.frame()
    for status in ("unfinished", "failed"):
        part = frame[frame["status"] == status]
        for row in part.head(LISTED).to_dict("records"):
            told = row["error"] if status == "failed" else f"loss {row['loss']:.4f}"
            say(f"{status}  {row['slug']}  step {row['step']} of {row['steps']}  {told}")
        if len(part) > LISTED:
            say(f"{status}  and {len(part) - LISTED} more")


def collect_session(grid: Path | str, *, out: Path | str, root: Path | str | None = None, say: Say) -> None:
    """Writes the table of the grid in a file, and says how many of its runs are in it only by name."""
    planned = read_grid(grid)
    frame = collect(planned, root_of(planned, root))
    path = write_table(frame, out)
    unmeasured = frame.loc[frame["k"] < 0, "status"].value_counts()
    told = "".join(f", {n} {status}" for status, n in unmeasured.items())
    say(f"{path}: {len(frame)} rows of {len(planned.specs)} runs{told}")


def root_of(grid: Grid, root: Path | str | None) -> Path:
    """The folder of the runs: the one that was given, or out/sweeps/<name of the grid>."""
    return Path(root) if root is not None else Path("out/sweeps") / grid.name
