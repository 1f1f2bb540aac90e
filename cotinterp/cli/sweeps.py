"""Many runs: a grid trained and evaluated, how far it is, and the one table that it makes."""

from pathlib import Path

import tyro

from cotinterp.cli.app import app


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
    from cotinterp.sweeps.session import sweep_session

    if not sweep_session(grid, root=root, executor=executor, retries=retries, device=device, say=print):
        raise SystemExit(1)


@app.command(name="status")
def status_command(grid: tyro.conf.Positional[Path], root: Path | None = None) -> None:
    """How far each run of a grid is, from the files alone.

    Args:
        grid: GRID.toml.
        root: Where its runs lie; out/sweeps/<name of the grid> by default.
    """
    from cotinterp.sweeps.session import status_session

    status_session(grid, root=root, say=print)


@app.command(name="collect")
def collect_command(grid: tyro.conf.Positional[Path], out: Path, root: Path | None = None) -> None:
    """One tidy table of a grid: a row for each run, side of the split and number of operands.

    Args:
        grid: GRID.toml.
        out: table.csv or table.parquet.
        root: Where its runs lie; out/sweeps/<name of the grid> by default.
    """
    from cotinterp.sweeps.session import collect_session

    collect_session(grid, root=root, out=out, say=print)
