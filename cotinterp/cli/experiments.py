"""Commands for many runs: sweeps of a grid, the reference experiment, and its report."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from cotinterp.cli.instruments import app

if TYPE_CHECKING:
    from cotinterp.sweeps.grid import Grid

MOST_LISTED = 20
"""Runs of one status that `status` lists."""


@app.command(name="reproduce")
def reproduce_command(
    out: Path = Path("out"),
    root: Path = Path("checkpoints"),
    from_scratch: bool = False,
    device: str = "auto",
    jobs: int = 2,
    quick: bool = False,
    precision: Literal["bf16", "fp32"] = "bf16",
) -> None:
    """Load or train the four reference models, apply every instrument to them, and write the report.

    Args:
        out: Report, figures, tables and manifest go here.
        root: Where the reference checkpoints lie.
        from_scratch: Train the models anew, under <out>/checkpoints, instead of loading them.
        device: auto, cpu, cuda, ...
        jobs: Models that are trained or measured side by side, each on one CPU thread.
        quick: Small samples: a look, not a measurement.
        precision: With --from-scratch, what to train in; fp32 is faster where bfloat16 is emulated.
    """
    from cotinterp.report.reproduce import reproduce
    from cotinterp.training.spec import reference_specs

    if precision == "fp32" and not from_scratch:
        raise ValueError("the reference models under --root were trained in bf16; fp32 ones need --from-scratch")
    specs = reference_specs(precision="fp32") if precision == "fp32" else None
    written = reproduce(
        out=out, root=root, from_scratch=from_scratch, device=device, jobs=jobs, quick=quick, specs=specs
    )
    print(written)


@app.command(name="report")
def report_command(out: Path = Path("out")) -> None:
    """Write report.html again from the tables of an earlier `cotinterp reproduce`.

    Args:
        out: Folder of an earlier `cotinterp reproduce`.
    """
    from cotinterp.report import rebuild_report

    print(rebuild_report(out))


@app.command(name="sweep")
def sweep_command(
    grid: tyro.conf.Positional[Path],
    root: Path | None = None,
    executor: str = "local:2",
    retries: int = 1,
    device: str = "cpu",
) -> None:
    """Train and evaluate every run of a grid; finished ones are skipped, interrupted ones go on, failures are listed.

    Args:
        grid: GRID.toml: fields of a run, a list makes an axis.
        root: The runs' directories are <root>/<slug>; out/sweeps/<name of the grid> by default.
        executor: local:N, dask://HOST:PORT, or slurm:partition=...,time=...
        retries: How often a failed run is started again before it is listed.
        device: cpu, auto, cuda, ...
    """
    from cotinterp.results import output_folder
    from cotinterp.sweeps.executors import open_executor
    from cotinterp.sweeps.grid import read_grid
    from cotinterp.sweeps.progress import progress_bars
    from cotinterp.sweeps.sweep import run_sweep

    planned = read_grid(grid)
    folder = output_folder(_root_of(planned, root))
    print(f"{planned.name}: {len(planned.specs)} runs under {folder}, by {executor}")
    with (
        open_executor(executor, folder=folder.resolve() / ".jobs") as workers,
        progress_bars(planned.name) as progress,
    ):
        outcomes = run_sweep(planned, folder, workers, retries=retries, device=device, progress=progress)
    counts = Counter(outcome.status for outcome in outcomes)
    print(f"{counts['trained']} finished now, {counts['present']} finished before, {counts['failed']} failed")
    for outcome in outcomes:
        if outcome.status == "failed":
            print(f"failed: {outcome.spec.slug}: {outcome.error}")
    if counts["failed"]:
        raise SystemExit(1)


@app.command(name="status")
def status_command(grid: tyro.conf.Positional[Path], root: Path | None = None) -> None:
    """Show how far each run of a grid is: counts, then every run that is started and not finished.

    Args:
        grid: GRID.toml.
        root: Where its runs lie; out/sweeps/<name of the grid> by default.
    """
    from cotinterp.sweeps.grid import read_grid
    from cotinterp.sweeps.sweep import sweep_status

    planned = read_grid(grid)
    status = sweep_status(planned, folder := _root_of(planned, root))
    print(f"{planned.name} under {folder}: " + ", ".join(f"{n} {name}" for name, n in status.counts.items()))
    frame = status.frame()
    for name in ("unfinished", "failed"):
        part = frame[frame["status"] == name]
        for row in part.head(MOST_LISTED).to_dict("records"):
            note = row["error"] if name == "failed" else f"loss {row['loss']:.4f}"
            print(f"{name}  {row['slug']}  step {row['step']} of {row['steps']}  {note}")
        if len(part) > MOST_LISTED:
            print(f"{name}  and {len(part) - MOST_LISTED} more")


@app.command(name="collect")
def collect_command(grid: tyro.conf.Positional[Path], out: Path, root: Path | None = None) -> None:
    """Write one tidy table of a grid: a row for each run, side of the split and number of operands.

    Args:
        grid: GRID.toml.
        out: table.csv or table.parquet.
        root: Where its runs lie; out/sweeps/<name of the grid> by default.
    """
    from cotinterp.sweeps.grid import read_grid
    from cotinterp.sweeps.table import sweep_table, write_sweep_table

    planned = read_grid(grid)
    frame = sweep_table(planned, _root_of(planned, root))
    path = write_sweep_table(frame, out)
    unmeasured = frame.loc[frame["k"] < 0, "status"].value_counts()
    missing = "".join(f", {n} {status}" for status, n in unmeasured.items())
    print(f"{path}: {len(frame)} rows of {len(planned.specs)} runs{missing}")


def _root_of(grid: "Grid", root: Path | None) -> Path:
    return root if root is not None else Path("out/sweeps") / grid.name
