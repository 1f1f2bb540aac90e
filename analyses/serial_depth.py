"""Does the depth that a task needs grow with its length, and do written totals lift the need?

From a task, yours too, to the verdict in one command. Trains direct models of several depths, cot beside them, and what
cot has to be compared with: filler (equal tokens) and a direct model as dear as cot in operations an answer, deeper and
wider. Begun again, it goes on where it was.

    python -m analyses.serial_depth path/to/file.py:ClassName [--quick]
"""

from pathlib import Path
from typing import Annotated

import tyro

from analyses.publishing import publish
from cotinterp import accuracy_against_compute, depth_verdicts, get_task, run_sweep, sweep_table
from cotinterp.depth.grid import DepthDesign, depth_grid, matched_controls
from cotinterp.report.simulator import build_simulator
from cotinterp.results import output_folder
from cotinterp.sweeps.executors import open_executor
from cotinterp.sweeps.progress import progress_bars
from cotinterp.sweeps.table import write_sweep_table


def main(
    task: Annotated[str, tyro.conf.Positional] = "digit-sum",
    k_max: int = 12,
    n_layers: tuple[int, ...] = (1, 2, 3, 4),
    seeds: int = 3,
    steps: tuple[int, ...] = (1000, 4000),
    d_model: int = 64,
    n_train: int = 100_000,
    controls: bool = True,
    executor: str = "local:2",
    quick: bool = False,
    out: Path = Path("out/serial_depth"),
) -> list[str]:
    """Train what is missing, judge, publish, and return the answer in words."""
    design = DepthDesign(
        k_max=k_max, n_layers=n_layers, seeds=seeds, steps=steps, d_model=d_model, n_train=n_train, controls=controls
    )
    if quick:
        design = DepthDesign(
            k_max=3, n_layers=(1, 2), seeds=1, steps=(20,), d_model=16, n_train=200, problems_per_k=30, controls=False
        )
    grid, tasks = depth_grid(task, design), {get_task(task).name: get_task(task)}
    root = output_folder(out / "runs")
    with open_executor(executor, folder=root / ".jobs") as workers, progress_bars(grid.name) as progress:
        outcomes = run_sweep(grid, root, workers, progress=progress)
    table = sweep_table(grid, root)
    write_sweep_table(table, out / "tables" / "sweep.csv")
    verdicts, compute = depth_verdicts(table), accuracy_against_compute(table, tasks=tasks)
    page = build_simulator(table, out / "simulator.html", tasks=tasks)
    failed = [f"failed: {outcome.spec.slug}: {outcome.error}" for outcome in outcomes if outcome.status == "failed"]
    laws = [f"{one.task}, {one.regime}: {one.law}. {one.reason}" for one in verdicts.verdicts]
    return publish(
        out,
        tables={
            "frontier": verdicts.frontiers,
            "depth_verdicts": verdicts.frame(),
            "depth_laws": verdicts.laws_frame(),
            "depth_budgets": verdicts.budgets_frame(),
            "compute": compute.frame(),
            "cheapest": compute.cheapest(),
            "controls": matched_controls(table, get_task(task)),
        },
        figures={"frontier": verdicts.figure(), "compute": compute.figure()},
        answer=[*laws, *failed, f"sliders and measured points: {page}"],
    )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
