"""From how many training problems on does a direct model find an algorithm, and does depth change that?

A table answers the problems that it was shown; an algorithm answers the others as well. N* is the number of training
problems from which the generalization ratio, (held out - chance) / (training - chance), passes one half, in models that
were trained until they had converged. Memory is the whole story of a task whose N* is beyond the range (Varma et al.
2023, arXiv 2309.02390; Liu et al. 2022, arXiv 2210.10749). Random labels have no rule, and so no N*.

    python -m analyses.memory_or_algorithm [--quick] [--table sweep.csv]
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from analyses.publishing import publish, tiny_sweep
from cotinterp import get_task
from cotinterp.behavior.generalization import HALF, guessing, size_thresholds
from cotinterp.cli.parsing import script
from cotinterp.depth.frontier import LEAST_PROBLEMS
from cotinterp.figures import lines
from cotinterp.sweeps.table import read_sweep_table

TABLE, OUT = Path("analyses/out/memory_or_algorithm.csv"), Path("out/memory_or_algorithm")
CURVE = ("task", "n_layers")


def main(quick: bool = False, table: Path | None = None, out: Path = OUT) -> list[str]:
    """Compare, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing."""
    with TemporaryDirectory() as scratch:
        sweep = tiny_sweep("memory_or_algorithm", Path(scratch), table) if quick else read_sweep_table(table or TABLE)
    ratios = ratio_by_run(sweep[(sweep["n"] > 0) & (sweep["reading"] == "answer")])
    learned = ratios[ratios["ratio"].notna()]
    several = learned.groupby(list(CURVE))["n_train"].transform("nunique") > 1
    found = size_thresholds(learned[several], CURVE)
    drawn = ratios.groupby([*CURVE, "n_train"], as_index=False)["ratio"].agg(["mean", "min", "max"])
    figure = lines(
        drawn.rename(columns={"mean": "ratio"}),
        x="n_train",
        y="ratio",
        low="min",
        high="max",
        color="n_layers",
        facet="task",
        references={"N* is where it passes one half": HALF},
        title="Generalization ratio by number of training problems: mean, least and greatest of the seeds",
        x_title="training problems",
        y_title="generalization ratio",
    ).update_xaxes(type="log")
    tables = {"ratios": ratios, "thresholds": found}
    return publish(out, tables=tables, figures={"thresholds": figure}, answer=[*answer(found, ratios)])


def ratio_by_run(measured: pd.DataFrame) -> pd.DataFrame:
    """The ratio of every run over its lengths; NaN where it does no better than chance on its own training problems."""
    rows = []
    for (task, _), run in measured.groupby(["task", "slug"], sort=True):
        known, counted = get_task(str(task)), run[(run["split"] == "train") | (run["n"] >= LEAST_PROBLEMS)]
        by_split = counted.pivot(index="k", columns="split", values="accuracy").dropna()
        chance = np.array([guessing(known, int(k)) for k in by_split.index])
        held, trained = ((by_split[side] - chance).mean() for side in ("heldout", "train"))
        first = run.iloc[0]
        labels = {name: first[name] for name in ("task", "n_layers", "n_train", "run_seed", "ended", "slug")}
        rows.append(labels | {"ratio": held / trained if trained > 0 else np.nan, "train": by_split["train"].mean()})
    return pd.DataFrame(rows)


def answer(found: pd.DataFrame, ratios: pd.DataFrame) -> Iterator[str]:
    """N* of every task and depth with its interval, and the mean ratio at each size."""
    for task, n_layers in sorted(set(ratios[list(CURVE)].itertuples(index=False, name=None))):
        if not ((found["task"] == task) & (found["n_layers"] == n_layers)).any():
            yield f"{task}, L{n_layers}: cannot tell: at most one size is better than chance on its training problems"
    for row in found.to_dict("records"):
        runs = ratios[(ratios["task"] == row["task"]) & (ratios["n_layers"] == row["n_layers"])]
        means = ", ".join(f"{size:,}: {mean:.2f}" for size, mean in runs.groupby("n_train")["ratio"].mean().items())
        ended = ", ".join(f"{n} {name or 'fixed'}" for name, n in runs["ended"].value_counts().items())
        sizes = (int(runs["n_train"].min()), int(runs["n_train"].max()))
        ends = [said(end, sizes) for end in (row["threshold"], row["ci_low"], row["ci_high"])]
        threshold = f"N* = {ends[0]} [{ends[1]}, {ends[2]}]"
        yield f"{row['task']}, L{row['n_layers']}: {threshold} ({row['seeds']} seeds; {means}; {ended})"


def said(threshold: float, sizes: tuple[int, int]) -> str:
    """A threshold in words, where it is beyond the range too, and an end of an interval that one seed cannot have."""
    if np.isnan(threshold):
        return "not known"
    if threshold == 0:
        return f"below {sizes[0]:,}"
    return f"{threshold:,.0f}" if np.isfinite(threshold) else f"above {sizes[1]:,}"


if __name__ == "__main__":
    script(main, __doc__)
