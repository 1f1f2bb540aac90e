"""What does a token more buy at inference, by which method, and does it beat a larger model that answers at once?

Every method of `cotinterp.behavior.search` with every scorer that it may choose by, on models that err, at budgets of a
half to 16 of the longest right response: the task's oracle, which nobody has and which makes best-of-n the ceiling of
every choice among samples; the model's own likelihood; and, fitted on what it wrote to training problems, a probe of
its middle layer and reward models of its own shape, of steps and of outcomes. Operations are counted, those of scorers
among them, training is not. Each seed is asked problems of its own, so that intervals by Student's t over seeds are
over problems, too. A best of many is best partly by luck: its lead on the next method says more than its number.

    cotinterp sweep analyses/grids/inference_compute.toml --root ROOT
    python -m analyses.inference_compute [--quick] [--root ROOT] [--table FILE]
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.publishing import of_each_run, over_seeds, publish
from cotinterp import Subject
from cotinterp.behavior.search.methods import METHODS
from cotinterp.cli.parsing import script
from cotinterp.figures.search import spending_figure
from cotinterp.studies.spending import TIMES, accuracy_by_compute, fitted_scorers
from cotinterp.training.checkpoints import Run

OUT, SHORTER = Path("out/inference_compute"), 3
POINT = ["task", "k", "regime", "shape", "method", "scorer", "times"]
AMOUNTS, ROOM = (1, 2, 4, 8, 16), 1.05
"""Operations that may be spent, times what greedy decoding takes with the trace; a method may go so far beyond."""


def main(quick: bool = False, root: Path | None = None, table: Path | None = None, out: Path = OUT) -> list[str]:
    """Measure the runs under `root`, or read `table`, publish, and return the answer in words; `quick`: tiny runs."""
    by_run = of_each_run("inference_compute", measured, quick, root, table, 100).fillna({"scorer": ""})
    by_run["method"] = by_run["method"].mask(by_run["regime"] == "direct", "at once")
    points = pd.DataFrame([summed(*cell) for cell in by_run.groupby(POINT, sort=False)])
    cells = list(points.groupby(["task", "k"], sort=False))
    figures = {f"{task}-{k}": spending_figure(rows) for (task, k), rows in cells}
    answer = [line for (task, k), rows in cells for line in said(f"{task}, K = {k}", rows)]
    tables = {"by_run": by_run, "points": points.drop(columns="by_seed")}
    return publish(out, tables=tables, figures=figures, answer=answer)


def measured(run: Run, problems: int) -> pd.DataFrame:
    """Every method that the run can use, at its longest length and a shorter one; greedy alone without a trace."""
    subject, spec = Subject.of_run(run), run.spec
    lengths = sorted({max(spec.k_min, spec.k_max - SHORTER), spec.k_max})
    methods, times = (METHODS, TIMES) if subject.writes_totals else (["greedy"], (1.0,))
    scorers = fitted_scorers(run, lengths, n=problems * 3, updates=problems * 20) if subject.writes_totals else {}
    found = [accuracy_by_compute(subject, k, scorers, n=problems, times=times, methods=[*methods]) for k in lengths]
    return pd.concat(found).assign(shape=f"L{spec.model.depth} w{spec.model.d_model}")


def summed(cell: Any, rows: pd.DataFrame) -> dict[Any, Any]:
    """Means over seeds, the interval of the accuracy, and what it is at each seed."""
    by_seed = rows.set_index("run_seed")["accuracy"]
    ends = zip(("accuracy", "low", "high"), over_seeds(by_seed.to_numpy()), strict=True)
    costs = rows[["written", "read", "passes", "flops"]].mean().to_dict() | {"seeds": len(rows), "by_seed": by_seed}
    return dict(zip(POINT, cell, strict=True)) | dict(ends) | costs


def said(where: str, rows: pd.DataFrame) -> Iterator[str]:
    """The best buy at each amount beside the next method and the ceiling; then each model that answers at once."""
    rows = rows.sort_values("flops")
    real = rows[(rows["regime"] != "direct") & (rows["scorer"] != "oracle")]
    ceiling = rows[(rows["method"] == "best-of-n") & (rows["scorer"] == "oracle")]
    unit = real.loc[(real["method"] == "greedy") & (real["times"] == 1), "flops"].min()
    for amount in AMOUNTS:
        best, most = (best_within(amount * unit, of) for of in (real, ceiling))
        following = best_within(amount * unit, real[real["method"] != best["method"]])
        lead = f"{worded(best)}, {apart(best, following)} beyond {worded(following)}"
        yield f"{where}, {amount} times greedy's operations: {lead}; ceiling {worded(most)}"
    for _, larger in rows[rows["regime"] == "direct"].iterrows():
        known, best = (real["flops"] <= larger["flops"] * ROOM).any(), best_within(larger["flops"], real)
        found = f"tokens bring {apart(best, larger)}, {worded(best)}" if known else "no answer with a trace is as cheap"
        yield f"{where}, {larger['shape']} {worded(larger)}: {found}"


def best_within(flops: float, rows: pd.DataFrame) -> Any:
    """The most accurate, of equal ones the cheapest; the cheapest of all where none is within it."""
    within = rows[rows["flops"] <= max(flops * ROOM, rows["flops"].min())]
    return within.iloc[int(within["accuracy"].to_numpy().argmax())]


def worded(one: pd.Series) -> str:
    """Method, scorer and accuracy."""
    by = f" by {one['scorer']}" if one["scorer"] else ""
    return f"{one['method']}{by} {one['accuracy']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def apart(one: pd.Series, other: pd.Series) -> str:
    """The difference of two accuracies, seed by seed."""
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*over_seeds((one["by_seed"] - other["by_seed"]).to_numpy()))


if __name__ == "__main__":
    script(main, __doc__)
