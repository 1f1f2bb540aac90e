"""What the commands `sweep`, `status` and `collect` do, told line by line to whoever called."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from cotinterp.results import output_folder
from cotinterp.sweeps.executors import open_executor
from cotinterp.sweeps.grid import Grid, read_grid
from cotinterp.sweeps.standing import rich_standing
from cotinterp.sweeps.status import sweep_status
from cotinterp.sweeps.sweep import run_sweep
from cotinterp.sweeps.table import collect, write_table

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
