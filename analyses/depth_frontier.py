"""How long a problem does each depth solve, and which law of depth do the frontiers prefer?

The source expects K* = L + 1 for direct answers; its rivals expect a tree (K* = 2^(b L)), a depth that is enough for
every length, or no gain at all. A run that had not converged counts as not converged: laws are fitted with its frontier
as observed and as a lower bound, and named only where both agree. cot stands beside direct, and beside each cot run the
models that had as many operations, tokens or parameters.

    python -m analyses.depth_frontier [--quick] [--table sweep.csv]
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analyses.publishing import publish
from cotinterp import depth_verdicts
from cotinterp.claims.depth_verdict import DepthVerdict, DepthVerdicts, parameters_in_words
from cotinterp.cli.parsing import script
from cotinterp.depth.frontier import CONVERGED
from cotinterp.depth.grid import matched_controls
from cotinterp.results import output_folder, write_atomic
from cotinterp.sweeps.table import read_sweep_table


def main(
    quick: bool = False,
    table: Path = Path("analyses/out/depth_frontier.csv"),
    out: Path = Path("out/depth_frontier"),
) -> list[str]:
    """Judge, publish, and return the answer in words. `quick` redraws the seeds a hundred times, not a thousand."""
    sweep = read_sweep_table(table)
    found = depth_verdicts(sweep, resamples=100 if quick else 1000)
    tasks = sorted(sweep.loc[sweep["k"] >= 0, "task"].unique())
    pairs = [matched_controls(sweep, task) for task in tasks]
    matched = pd.concat([some for some in pairs if len(some)] or pairs[:1], ignore_index=True)
    write_atomic(output_folder(out) / "depth_verdicts.json", found.json())
    return publish(
        out,
        tables={
            "frontier": found.frontiers,
            "depth_verdicts": found.frame(),
            "laws": found.laws_frame(),
            "budgets": found.budgets_frame(),
            "controls": matched,
        },
        figures={f"depth_frontier_{task}": found.figure(task) for task in tasks},
        answer=[line for task in tasks for line in answer(found, task, matched)],
    )


def answer(found: DepthVerdicts, task: str, matched: pd.DataFrame) -> Iterator[str]:
    """Frontiers, verdicts and controls of one task."""
    for one in found.verdicts:
        if one.task == task:
            yield f"{task} {one.regime}{'' if one.reading == 'answer' else f' ({one.reading})'}: {one.law}"
            yield from (f"    {line}" for line in reached(found.frontiers, one))
            yield from (f"    {line}" for line in laws(one))
            yield f"    {one.reason}"
    for match, pairs in matched[matched["task"] == task].groupby("match"):
        less = int((pairs["control_frontier"] < pairs["frontier"]).sum())
        bounds = int((~pairs["control_convergence"].isin(CONVERGED)).sum())
        yield f"    cot beside {match}: {less} of {len(pairs)} controls solve less ({bounds} had not converged)"


def reached(frontiers: pd.DataFrame, one: DepthVerdict) -> Iterator[str]:
    """The longest K solved by each run of the judged recipe, by budget and depth; + where it is a lower bound."""
    mine = frontiers[(frontiers["task"] == one.task) & (frontiers["regime"] == one.regime)]
    mine = mine[(mine["reading"] == one.reading) & (mine["k_top"] >= 0)]
    for steps, runs in mine.groupby("steps"):
        cells = []
        for (depth, width), seeds in runs.groupby(["n_layers", "d_model"]):
            ends = seeds["convergence"].isin(CONVERGED).map({True: "", False: "+"})
            cells.append(f"L{depth} d{width} {' '.join(seeds['frontier'].astype(str) + ends)}")
        yield f"longest K at {steps} steps, of {runs['k_top'].max()}: {', '.join(cells)}"


def laws(one: DepthVerdict) -> Iterator[str]:
    """Weight of every law, share of resamples, and its parameters, for both treatments of unconverged runs."""
    for treatment, fits in one.fits.items():
        shares = one.shares[treatment]
        cells = [
            f"{law} {fit.weight:.2f}/{shares[law]:.0%} ({parameters_in_words(fit)})" for law, fit in fits.fits.items()
        ]
        yield f"{treatment}, weight/resamples: {', '.join(cells)}"
    if one.regime == "direct":
        yield f"runs beyond K = L + 1: {len(one.beyond_source)} ({'; '.join(one.beyond_source[:3]) or 'none'})"


if __name__ == "__main__":
    script(main, __doc__)
