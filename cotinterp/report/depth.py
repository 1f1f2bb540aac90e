"""From a task to the verdict on its depth in one call: train what is missing, judge, write tables and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from cotinterp.claims.depth_law import depth_verdicts
from cotinterp.depth.compute import accuracy_against_compute
from cotinterp.depth.frontier import MEASURED
from cotinterp.depth.grid import DepthDesign, depth_grid, matched_controls
from cotinterp.figures import NamedFigure, write_figures
from cotinterp.report.simulator import build_simulator
from cotinterp.results import output_folder, write_atomic
from cotinterp.sweeps.executors import open_executor
from cotinterp.sweeps.progress import progress_bars
from cotinterp.sweeps.sweep import run_sweep
from cotinterp.sweeps.table import sweep_table, write_sweep_table
from cotinterp.tasks import get_task

FAILED = "failed: "
"""How the line of an answer begins that names a run which failed."""


def depth_report(task: str, design: DepthDesign, *, out: Path, executor: str = "local:2") -> tuple[str, ...]:
    """Asks whether the depth that a task needs grows with its length, and whether written totals lift the need.

    The runs of `depth_grid` are trained and evaluated under `out`/runs, those that are finished are left alone. Tables
    (sweep, frontier, depth_verdicts, depth_laws, depth_budgets, compute, cheapest, controls), figures, `simulator.html`
    and `answer.txt` are written under `out`.

    Args:
        task: A name, or `path/to/file.py:ClassName`, whose file is run.
        executor: As `cotinterp.sweeps.executors.open_executor` takes it.

    Returns:
        The answer in words: the law of each regime with its reason, and every run that failed.

    Raises:
        ValueError: The design does not fit the task, or nothing could be measured by it (`depth_grid`); nothing is
            trained then. Or the task was changed while it was trained.
    """
    known, grid = get_task(task), depth_grid(task, design)
    root = output_folder(out / "runs")
    with open_executor(executor, folder=root / ".jobs") as workers, progress_bars(grid.name) as progress:
        outcomes = run_sweep(grid, root, workers, progress=progress)
    table = sweep_table(grid, root)
    write_sweep_table(table, out / "tables" / "sweep.csv")
    verdicts = depth_verdicts(table)
    answer = [f"{one.task}, {one.regime}: {one.law}. {one.reason}" for one in verdicts.verdicts]
    answer += [f"{FAILED}{outcome.spec.slug}: {outcome.error}" for outcome in outcomes if outcome.status == "failed"]
    tables = {
        "frontier": verdicts.frontiers,
        "depth_verdicts": verdicts.frame(),
        "depth_laws": verdicts.laws_frame(),
        "depth_budgets": verdicts.budgets_frame(),
    }
    figures: dict[str, go.Figure] = {}
    if verdicts.frontiers["convergence"].isin(MEASURED).any():
        tasks = {known.name: known}
        compute = accuracy_against_compute(table, tasks=tasks)
        tables |= {"compute": compute.frame(), "cheapest": compute.cheapest()}
        tables["controls"] = matched_controls(table, known)
        figures = {"frontier": verdicts.figure(), "compute": compute.figure()}
        page = build_simulator(table, out / "simulator.html", tasks=tasks)
        answer.append(f"sliders and measured points: {page}")
    return write_answer(out, tables=tables, figures=figures, answer=answer)


def write_answer(
    out: Path, *, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, go.Figure], answer: Sequence[str]
) -> tuple[str, ...]:
    """Writes tables, figures (they share one plotly.js and open offline) and the answer in words, which is returned."""
    folder = output_folder(out / "tables")
    for name, table in tables.items():
        write_atomic(folder / f"{name}.csv", table.to_csv(index=False))
    write_figures([NamedFigure(name, figure) for name, figure in figures.items()], out)
    write_atomic(out / "answer.txt", "\n".join(answer) + "\n")
    return tuple(answer)
