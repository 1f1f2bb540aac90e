"""The reference experiment and its report."""

from pathlib import Path
from typing import Literal

import tyro

from cotinterp.cli.instruments import app


@app.command(name="report")
def report_command(out: Path = Path("out")) -> None:
    """Write report.html anew from the tables that lie in a folder.

    Args:
        out: Folder of an earlier `cotinterp reproduce`.
    """
    from cotinterp.report import rebuild_report

    print(rebuild_report(out))


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
    """The reference experiment: load or train the four models, take them apart, write the report.

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


@app.command(name="sweep")
def sweep_command(
    grid: tyro.conf.Positional[Path],
    root: Path | None = None,
    executor: str = "local:2",
    retries: int = 1,
    device: str = "cpu",
) -> None:
    """Train and evaluate every run of a grid; finished ones are skipped, killed ones go on, failed ones are listed.

    Args:
        grid: GRID.toml: fields of a run, a list makes an axis.
        root: The runs' directories are <root>/<slug>; out/sweeps/<name of the grid> by default.
        executor: local:N, dask://HOST:PORT, or slurm:partition=...,time=...
        retries: How often a failed run is begun again before it is listed.
        device: cpu, auto, cuda, ...
    """
    from cotinterp.sweeps.sweep import sweep_session

    if not sweep_session(grid, root=root, executor=executor, retries=retries, device=device, say=print):
        raise SystemExit(1)


@app.command(name="status")
def status_command(grid: tyro.conf.Positional[Path], root: Path | None = None) -> None:
    """How far each run of a grid is, from the files alone.

    Args:
        grid: GRID.toml.
        root: Where its runs lie; out/sweeps/<name of the grid> by default.
    """
    from cotinterp.sweeps.sweep import status_session

    status_session(grid, root=root, say=print)


@app.command(name="collect")
def collect_command(grid: tyro.conf.Positional[Path], out: Path, root: Path | None = None) -> None:
    """One tidy table of a grid: a row for each run, side of the split and number of operands.

    Args:
        grid: GRID.toml.
        out: table.csv or table.parquet.
        root: Where its runs lie; out/sweeps/<name of the grid> by default.
    """
    from cotinterp.sweeps.sweep import collect_session

    collect_session(grid, root=root, out=out, say=print)
