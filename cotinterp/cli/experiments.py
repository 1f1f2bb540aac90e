"""Commands for many runs: sweeps of a grid, the reference experiment, and its report."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cotinterp.cli.instruments import Count, NonNegative, app

if TYPE_CHECKING:
    import pandas as pd

    from cotinterp.sweeps.grid import Grid

GridFile = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="GRID.toml")]

MOST_LISTED = 20
"""Runs of one status that `status` lists."""


@app.command(
    name="reproduce",
    examples=(
        "cotinterp reproduce",
        "cotinterp reproduce --quick --out out/look",
        "cotinterp reproduce --from-scratch --precision fp32 --out out/anew",
    ),
)
def reproduce_command(
    out: Path = Path("out"),
    root: Path | None = None,
    from_scratch: bool = False,
    device: str = "auto",
    jobs: Count = 2,
    quick: bool = False,
    precision: Literal["bf16", "fp32"] = "bf16",
) -> None:
    """Load or train the four reference models, apply every instrument to them, and write the report.

    Args:
        out: Report, figures, tables and manifest go here.
        root: Where the reference checkpoints lie; ./checkpoints by default, then those that travel with the package.
        from_scratch: Train the models anew, under <out>/checkpoints, instead of loading them.
        device: auto, cpu, cuda, ...
        jobs: Models that are trained or measured side by side, each on one CPU thread.
        quick: Small samples: a look, not a measurement.
        precision: With --from-scratch, what to train in; fp32 is faster where bfloat16 is emulated.
    """
    from cotinterp.results import output_folder
    from cotinterp.training.spec import reference_directories, reference_specs
    from cotinterp.training.spec_file import DEFAULT_ROOT

    if precision == "fp32" and not from_scratch:
        raise ValueError("the reference models under --root were trained in bf16; fp32 ones need --from-scratch")
    if root is not None and from_scratch:
        raise ValueError("--from-scratch trains under <out>/checkpoints, so --root says nothing: omit one of the two")
    place = root or DEFAULT_ROOT
    if not from_scratch:
        reference_directories(place)
    output_folder(out)
    from cotinterp.sweeps.progress import progress_stages

    with progress_stages("reproduce", ("load torch",)):
        from cotinterp.report.reproduce import reproduce

    specs = reference_specs(precision="fp32") if precision == "fp32" else None
    written = reproduce(
        out=out, root=place, from_scratch=from_scratch, device=device, jobs=jobs, quick=quick, specs=specs
    )
    print(written)


@app.command(
    name="report",
    examples=(
        "cotinterp report",
        "cotinterp report --out out/look",
    ),
)
def report_command(out: Path = Path("out")) -> None:
    """Write report.html again from the tables of an earlier `cotinterp reproduce`.

    Args:
        out: Folder of an earlier `cotinterp reproduce`.
    """
    if not (out / "tables").is_dir():
        raise FileNotFoundError(f"no tables in {out}: give the folder of an earlier `cotinterp reproduce --out FOLDER`")
    from cotinterp.sweeps.progress import progress_stages

    with progress_stages("report", ("write the page",)):
        from cotinterp.report import rebuild_report

        path = rebuild_report(out)
    print(path)


@app.command(
    name="sweep",
    examples=(
        "cotinterp sweep depth_frontier",
        "cotinterp sweep grid.toml --root out/sweeps/mine --executor local:4",
    ),
)
def sweep_command(
    grid: GridFile,
    root: Path | None = None,
    executor: str = "local:2",
    retries: NonNegative = 1,
    device: str = "cpu",
) -> None:
    """Train and evaluate every run of a grid; finished ones are skipped, interrupted ones go on, failures are listed.

    Args:
        grid: GRID.toml (fields of a run, a list makes an axis), or the name of one that travels with the package.
        root: The runs' directories are <root>/<slug>; out/sweeps/<name of the grid> by default.
        executor: local:N, dask://HOST:PORT, or slurm:partition=...,time=...
        retries: How often a failed run is started again before it is listed.
        device: cpu, auto, cuda, ...
    """
    from cotinterp.results import output_folder
    from cotinterp.sweeps.executors import check_executor, open_executor
    from cotinterp.sweeps.grid import read_grid

    planned = read_grid(_file_of(grid))
    check_executor(executor)
    folder = output_folder(_root_of(planned, root))
    from cotinterp.sweeps.progress import progress_bars, progress_stages

    with progress_stages(planned.name, ("load torch",)):
        from cotinterp.models.build import resolve_device
        from cotinterp.sweeps.sweep import run_sweep

    if executor.startswith("local:"):
        resolve_device(device)
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


@app.command(
    name="status",
    examples=(
        "cotinterp status depth_frontier",
        "cotinterp status grid.toml --root out/sweeps/mine",
    ),
)
def status_command(grid: GridFile, root: Path | None = None) -> None:
    """Show how far each run of a grid is: counts, then every run that is started and not finished.

    Args:
        grid: GRID.toml.
        root: Where its runs lie; out/sweeps/<name of the grid> by default.
    """
    from cotinterp.sweeps.grid import read_grid

    planned = read_grid(_file_of(grid))
    from cotinterp.sweeps.progress import progress_stages

    with progress_stages(f"status {planned.name}", ("read the runs",)):
        from cotinterp.sweeps.sweep import sweep_status

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
    _print_earlier(frame)


@app.command(
    name="collect",
    examples=(
        "cotinterp collect depth_frontier --out table.csv",
        "cotinterp collect grid.toml --root out/sweeps/mine --out table.parquet",
    ),
)
def collect_command(grid: GridFile, out: Path, root: Path | None = None) -> None:
    """Write one tidy table of a grid: a row for each run, side of the split and number of operands.

    Args:
        grid: GRID.toml.
        out: table.csv or table.parquet.
        root: Where its runs lie; out/sweeps/<name of the grid> by default.
    """
    from cotinterp.results import output_folder
    from cotinterp.sweeps.grid import read_grid

    planned = read_grid(_file_of(grid))
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{str(out)!r}: a table is written as .csv or .parquet")
    if not (folder := _root_of(planned, root)).is_dir():
        raise FileNotFoundError(f"no folder {folder}: `cotinterp sweep` with this grid and --root makes it")
    output_folder(out.parent)
    from cotinterp.sweeps.progress import progress_stages

    with progress_stages(f"collect {planned.name}", ("read the runs", "write")) as begin:
        from cotinterp.sweeps.table import sweep_table, write_sweep_table

        frame = sweep_table(planned, folder)
        begin("write")
        path = write_sweep_table(frame, out)
    unmeasured = frame.loc[frame["k"] < 0, "status"].value_counts()
    missing = "".join(f", {n} {status}" for status, n in unmeasured.items())
    print(f"{path}: {len(frame)} rows of {len(planned.specs)} runs{missing}")
    _print_earlier(frame)


@app.command(
    name="depth",
    examples=(
        "cotinterp depth digit-sum",
        "cotinterp depth mine.py:Swap --quick",
        "cotinterp depth s3 --k-max 8 --n-layers 1 2 4 --seeds 5",
    ),
)
def depth_command(
    task: tyro.conf.Positional[str] = "digit-sum",
    k_max: Count | None = None,
    n_layers: tuple[Count, ...] = (),
    seeds: Count | None = None,
    steps: tuple[Count, ...] = (),
    d_model: Count | None = None,
    n_train: Count | None = None,
    controls: bool = True,
    executor: str = "local:2",
    quick: bool = False,
    out: Path | None = None,
) -> None:
    """Ask which law of depth a task follows: train direct models of several depths, cot and its controls, and judge.

    Begun again, it goes on where it was.

    Args:
        task: A name, or path/to/file.py:ClassName.
        k_max: Longest problems; 12 by default, or the longest that the task has.
        n_layers: Depths of the direct models; 1 2 3 4 by default.
        seeds: Trained models of each kind; 3 by default.
        steps: Training budgets of the direct models; 1000 4000 by default.
        d_model: Width; 64 by default.
        n_train: Training problems; 100000 by default.
        controls: Also train filler, and direct models that are as dear as cot. Not with --quick.
        executor: local:N, dask://HOST:PORT, or slurm:partition=...,time=...
        quick: Tiny models, hardly trained: a look, not a measurement. What else is given counts.
        out: Runs, tables, figures and simulator.html go here; out/serial_depth/<name of the task> by default.
    """
    from dataclasses import replace

    from cotinterp.tasks import get_task

    known = get_task(task)  # a wrong name or file is answered before torch is loaded

    from cotinterp.sweeps.progress import progress_stages

    with progress_stages("depth", ("load torch",)):
        from cotinterp.depth.grid import DepthDesign, quick_design
        from cotinterp.report.depth import FAILED, depth_report

    out = out or Path("out/serial_depth") / known.name
    design = quick_design(known) if quick else DepthDesign(k_max=min(DepthDesign.k_max, known.max_k), controls=controls)
    given: dict[str, Any] = {
        "k_max": k_max,
        "n_layers": n_layers,
        "seeds": seeds,
        "steps": steps,
        "d_model": d_model,
        "n_train": n_train,
    }
    design = replace(design, **{name: value for name, value in given.items() if value not in (None, ())})
    answer = depth_report(task, design, out=out, executor=executor)
    print(*answer, f"tables and figures: {out}", sep="\n")
    if any(line.startswith(FAILED) for line in answer):
        raise SystemExit(1)


def _print_earlier(frame: "pd.DataFrame") -> None:
    """Says where runs are absent that were trained before their task was changed."""
    notes = frame.loc[(frame["status"] == "absent") & (frame["error"] != ""), "error"]
    if len(notes):
        print(f"absent  {len(notes)} of a task that was changed, such as: {notes.iloc[0]}")


def _root_of(grid: "Grid", root: Path | None) -> Path:
    return root if root is not None else Path("out/sweeps") / grid.name


def _file_of(grid: Path) -> Path:
    """The grid's file: a path, or by its name alone one that travels with the package."""
    from cotinterp.results.shipped import shipped

    named = shipped("grids") / f"{grid.name}.toml"
    if grid.exists() or grid.name != str(grid) or grid.suffix:
        return grid
    if not named.is_file():
        there = ", ".join(sorted(path.stem for path in shipped("grids").glob("*.toml")))
        raise FileNotFoundError(f"no grid {str(grid)!r}: give a file GRID.toml, or the name of one of ours: {there}")
    return named
