"""Many runs trained and evaluated: finished ones are skipped, killed ones go on, failed ones are listed."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from cotinterp.models.weights import CheckpointError
from cotinterp.results import output_folder
from cotinterp.sweeps.grid import Grid
from cotinterp.sweeps.pool import ExecutorLostError, JobResult, RetryPolicy, executor_map, parallel_map
from cotinterp.sweeps.progress import MetricsProgress, OnProgress
from cotinterp.sweeps.single_run import (
    STATUSES,
    RunJob,
    RunStatus,
    Status,
    check_same_task,
    is_evaluated,
    mark_root,
    run_status,
    train_and_evaluate,
    train_when_free,
    write_failure,
)
from cotinterp.training.checkpoints import STATE_FILE, is_finished, read_record
from cotinterp.training.spec import RunSpec
from cotinterp.training.spec_file import check_same_spec, task_of
from cotinterp.transcripts.render import longest_transcript

DEATHS = 3
"""How often in a row a run is started again after its process died without having saved anything."""


@dataclass(frozen=True)
class RunOutcome:
    """What became of one run of a sweep.

    Attributes:
        status: `trained` now, `present` (it was finished before and was left alone), or `failed`.
        error: Type and text of what went wrong; empty otherwise.
        seconds: Wall time of this sweep's part of the training; 0 for what was present. A run that went on where an
            earlier process left off took longer in all: its metrics say how long.
        attempts: How often it was started by this sweep.
    """

    spec: RunSpec
    directory: Path
    status: Literal["trained", "present", "failed"]
    error: str
    seconds: float
    attempts: int = 0

    @classmethod
    def of_job(cls, spec: RunSpec, root: Path, result: JobResult[None]) -> "RunOutcome":
        """From the result of a run that was not finished before."""
        status: Literal["trained", "failed"] = "failed" if result.error else "trained"
        return cls(spec, root / spec.slug, status, result.error, result.seconds, result.attempts)


def train_all(
    specs: Sequence[RunSpec],
    *,
    root: Path,
    jobs: int = 2,
    device: str = "cpu",
    progress: OnProgress | None = None,
) -> tuple[RunOutcome, ...]:
    """Trains every spec under `root/<slug>`, `jobs` at a time on one CPU thread each; one outcome for each spec.

    Those with the longest transcripts start first, which keeps all processes busy to the end. A finished run is left as
    it is; a run that was killed goes on where it was; one that another process is training is waited for. A run that
    fails (a loss that is not finite, a directory that holds another run, a process that died) is listed and stops no
    other. The weights do not depend on `jobs` or on the order of the specs. Nothing is evaluated (`run_sweep` does that
    too).

    Args:
        specs: Equal ones are trained once.
        root: Folder of the checkpoints; made where it is missing.
        jobs: Processes; 0 trains in this one, one after the other.
        progress: Called twice a second with how far each run is; `progress_bars` shows it on a terminal.

    Raises:
        ValueError: Fewer jobs than 0. NotADirectoryError, PermissionError: `root` cannot be written. CheckpointError:
            A run is to begin after one that is neither among the specs nor finished under `root`.
    """
    root = output_folder(root)
    ordered = sorted(dict.fromkeys(specs), key=transcript_length, reverse=True)
    present = [spec for spec in ordered if _is_trained(spec, root / spec.slug)]
    left = [spec for spec in ordered if spec not in present]
    after = _starts(left, {spec.slug for spec in present}, root)
    measured = MetricsProgress([*present, *left], root)

    def on_poll(done: frozenset[int]) -> None:
        if progress is not None:
            progress(measured({spec.slug for spec in (*present, *(left[index] for index in done))}))

    work = [(spec, root / spec.slug, device) for spec in left]
    results = parallel_map(_train, work, jobs=jobs, after=after, on_poll=on_poll)
    outcomes = {spec: RunOutcome(spec, root / spec.slug, "present", "", 0.0) for spec in present}
    outcomes |= {spec: RunOutcome.of_job(spec, root, result) for spec, result in zip(left, results, strict=True)}
    return tuple(outcomes[spec] for spec in specs)


def transcript_length(spec: RunSpec) -> int:
    """Tokens of the longest transcript of a run: the time that its training takes grows with it."""
    return longest_transcript(task_of(spec), spec.k_max, spec.regime)


def _is_trained(spec: RunSpec, directory: Path) -> bool:
    try:
        check_same_spec(directory, spec)
        check_same_task(directory, spec)
    except (OSError, CheckpointError):
        return False
    return is_finished(directory)


def _train(work: tuple[RunSpec, Path, str]) -> None:
    spec, directory, device = work
    train_when_free(spec, directory, device)


def run_sweep(
    grid: Grid,
    root: Path | str,
    executor: Executor,
    *,
    retries: int = 1,
    device: str = "cpu",
    progress: OnProgress | None = None,
) -> tuple[RunOutcome, ...]:
    """Trains and evaluates every run of the grid under `root/<slug>`; one outcome for each, in the grid's order.

    A run that is finished and evaluated is left as it is. One that was started goes on from its last saved state,
    wherever it was started, so the same call is what follows an interruption. Those with the longest transcripts start
    first. Weights and evaluations depend on the spec alone: not on the executor, the number of its workers or the
    order. A run that another sweep is training under the same root is waited for.

    Args:
        executor: Open, such as `open_executor` yields it; for workers on other machines `root` must be on a file system
            that they share.
        retries: How often a run that failed is started again. A run whose process or machine died is started again
            regardless of this, as long as it saves something between deaths, and three times without.
        progress: Called with how far each run is, twice a second or as often as so many files can be looked at.

    Returns:
        Outcomes; of those that failed, `failure.json` in the run's directory says what the outcome says. A directory
        that holds something else than the run is not touched: it is a failed outcome alone.

    Raises:
        ExecutorLostError: The executor is gone, such as a Dask scheduler that was killed; says what is finished.
        CheckpointError: A run is to start from one, or be taught by one, that is neither in the grid nor finished
            under `root`.
        ValueError: Fewer than 0 retries. NotADirectoryError, PermissionError: `root` cannot be written.
    """
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, got {retries}")
    root = output_folder(root).resolve()
    known: dict[str, str] = {}
    found = {spec: run_status(spec, root, grid.problems_per_k, known) for spec in grid.specs}
    conflicts = {spec: status.error for spec, status in found.items() if status.conflict}
    present = {spec for spec, status in found.items() if status.status == "finished"}
    left = sorted(
        (spec for spec in found if spec not in conflicts and spec not in present), key=transcript_length, reverse=True
    )
    after = _starts(left, {spec.slug for spec in present}, root)
    token, here = mark_root(root), Path(os.getcwd())
    work = [RunJob(spec, root, token, here, grid.problems_per_k, device) for spec in left]
    measured = MetricsProgress(grid.specs, root)

    def on_done(index: int, result: JobResult[None]) -> None:
        if result.error:
            write_failure(work[index], result.error, result.attempts)

    def on_poll(done: frozenset[int]) -> None:
        if progress is not None:
            progress(measured({left[index].slug for index in done} | {spec.slug for spec in (*present, *conflicts)}))

    try:
        results = executor_map(
            train_and_evaluate,
            work,
            executor,
            retry=RetryPolicy(retries=retries, deaths=DEATHS),
            after=after,
            saved=lambda index: _saved_step(work[index].directory),
            on_done=on_done,
            on_poll=on_poll,
        )
    except ExecutorLostError as error:
        raise ExecutorLostError(_what_is_left(error, grid, root)) from error
    outcomes = {spec: RunOutcome(spec, root / spec.slug, "failed", text, 0.0) for spec, text in conflicts.items()}
    outcomes |= {spec: RunOutcome(spec, root / spec.slug, "present", "", 0.0) for spec in present}
    outcomes |= {spec: RunOutcome.of_job(spec, root, result) for spec, result in zip(left, results, strict=True)}
    return tuple(outcomes[spec] for spec in grid.specs)


def _starts(left: Sequence[RunSpec], present: set[str], root: Path) -> dict[int, set[int]]:
    """For each run that begins after others of those that are left, the places of these (`RunSpec.after`)."""
    places = {spec.slug: place for place, spec in enumerate(left)}
    for spec in left:
        for slug in spec.after:
            if slug not in places and slug not in present and not is_finished(root / slug):
                what = "start from" if slug == spec.start_from else "be taught by"
                field = (
                    "start_from" if slug == spec.start_from else f"{'distill' if spec.distill else 'rewards'}.teacher"
                )
                raise CheckpointError(
                    f"{spec.slug} is to {what} {slug!r}, which is neither in the grid nor finished under {root}: add "
                    f"that run to the grid, or correct {field}"
                )
    return {place: {places[slug] for slug in spec.after if slug in places} for place, spec in enumerate(left)}


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
    """How far every run of a grid is, in the grid's order."""

    runs: tuple[RunStatus, ...]

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many runs are finished, unfinished, failed and absent."""
        return {status: sum(run.status == status for run in self.runs) for status in STATUSES}

    def frame(self) -> pd.DataFrame:
        """One row for each run: slug, status, step (logged updates), steps (of the whole run), loss (last), error."""
        rows = [(x.spec.slug, x.status, x.step, x.spec.most_steps, x.loss, x.error) for x in self.runs]
        return pd.DataFrame(rows, columns=["slug", "status", "step", "steps", "loss", "error"])


def sweep_status(grid: Grid, root: Path | str) -> SweepStatus:
    """How far each run of the grid is under `root`; all are absent where there is no such folder yet."""
    root = Path(root).resolve()
    known: dict[str, str] = {}
    return SweepStatus(tuple(run_status(spec, root, grid.problems_per_k, known) for spec in grid.specs))
