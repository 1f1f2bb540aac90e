"""What does accuracy cost in parameters, in written tokens, in operations of an answer and of training?

A model can be given serial steps in depth (parameters) or in writing (tokens). Both are priced here in matrix products,
counted from shapes and transcripts: of one right answer with a cache of keys, and of the whole training. For each task,
length and regime: the least of each price at which a measured configuration gets 90% of the held-out problems right.
The page simulator.html lays the measured frontier over what each law of depth asks.

    python -m analyses.compute [--table analyses/out/depth_frontier.csv] [--quick]
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analyses.publishing import publish
from cotinterp import ModelSpec, accuracy_against_compute, depth_frontier
from cotinterp.cli.parsing import script
from cotinterp.depth.compute import PRICES, ComputeResult
from cotinterp.depth.cost import answer_cost, equal_flops
from cotinterp.report.simulator import build_simulator
from cotinterp.sweeps.table import read_sweep_table

SHAPE = ModelSpec(n_layers=1, d_model=64, n_heads=4, d_mlp=256, n_ctx=192)


def main(
    quick: bool = False, table: Path = Path("analyses/out/depth_frontier.csv"), out: Path = Path("out/compute")
) -> list[str]:
    """Price the sweep, publish, and return the answer in words. `quick` keeps the first task and its shorter half."""
    swept = read_sweep_table(table)
    if quick:
        swept = swept[(swept["task"] == "digit-sum") & (swept["k"] <= swept["k_max"] // 2)]
    result, runs = accuracy_against_compute(swept), depth_frontier(swept).frame()
    shapes = matched(swept)
    lines = publish(
        out,
        tables={"compute": result.frame(), "cheapest": result.cheapest(), "frontier": runs, "matched_shapes": shapes},
        figures={"compute": result.figure()},
        answer=[*answer(result), *equal_cost(shapes)],
    )
    build_simulator(swept, out / "simulator.html")
    return lines


def answer(result: ComputeResult) -> Iterator[str]:
    """For each task, the longest length that some configuration of either regime solves, and what it takes."""
    cheapest = result.cheapest()
    for task, rows in cheapest.groupby("task", sort=False):
        solved = rows[rows["good_enough"] > 0]
        if solved.empty:
            yield f"{task}: no configuration gets 90% of any length right at these budgets"
            continue
        for row in solved[solved["k"] == solved["k"].max()].itertuples():
            prices = ", ".join(f"{name} {getattr(row, name):.3g}" for name in PRICES)
            yield f"{task}, K = {row.k}, {row.regime}: {row.configuration}; {prices}"


def matched(swept: pd.DataFrame) -> pd.DataFrame:
    """The direct shapes whose answer costs what that of `cot` with one layer does, at each task's longest length."""
    rows = []
    for task, k in swept.groupby("task", sort=False)["k_max"].max().items():
        for by in ("depth", "width"):
            shape = equal_flops(SHAPE, str(task), int(k), by=by)
            ratio = (
                answer_cost(str(task), "direct", shape, int(k)).flops
                / answer_cost(str(task), "cot", SHAPE, int(k)).flops
            )
            rows.append((task, int(k), by, shape.n_layers, shape.d_model, shape.d_mlp, ratio))
    return pd.DataFrame(rows, columns=["task", "k", "by", "n_layers", "d_model", "d_mlp", "flops_ratio"])


def equal_cost(shapes: pd.DataFrame) -> Iterator[str]:
    """A line for each matched shape."""
    for row in shapes.itertuples():
        yield (
            f"{row.task}, K = {row.k}: a cot answer of one layer, d_model 64 costs what a direct one does with "
            f"n_layers {row.n_layers}, d_model {row.d_model} (by {row.by}; {row.flops_ratio:.2f} of it)"
        )


if __name__ == "__main__":
    script(main, __doc__)
