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
import plotly.graph_objects as go

from analyses.publishing import publish, tiny_sweep
from cotinterp.behavior.generalization import HALF, ratio_by_run, size_thresholds
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.sweeps.table import read_sweep_table

TABLE, OUT = Path("analyses/out/memory_or_algorithm.csv"), Path("out/memory_or_algorithm")
CURVE = ("task", "n_layers")


def main(quick: bool = False, table: Path | None = None, out: Path = OUT) -> list[str]:
    """Compare, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing."""
    with TemporaryDirectory() as scratch:
        sweep = tiny_sweep("memory_or_algorithm", Path(scratch), table) if quick else read_sweep_table(table or TABLE)
    ratios = ratio_by_run(sweep)
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
    figures = {"ratios": figure}
    if len(found):
        figures["thresholds"] = threshold_figure(found, learned["n_train"])
    return publish(out, tables=tables, figures=figures, answer=[*answer(found, ratios)])


def threshold_figure(found: pd.DataFrame, sizes: pd.Series) -> go.Figure:
    """N* by depth and task with its interval; one that is beyond the range is drawn at the edge of it."""
    ends = ["threshold", "ci_low", "ci_high"]
    within = found.assign(**{end: found[end].clip(sizes.min(), sizes.max()) for end in ends})
    drawn = lines(
        within, x="n_layers", y="threshold", low="ci_low", high="ci_high", color="task",
        title="N*: training problems from which on a direct model generalizes (at the edges: beyond the range)",
        x_title="layers", y_title="training problems",
    )  # fmt: skip
    return drawn.update_yaxes(type="log", range=[np.log10(sizes.min()) - 0.1, np.log10(sizes.max()) + 0.1])


def answer(found: pd.DataFrame, ratios: pd.DataFrame) -> Iterator[str]:
    """N* of every task and depth with its interval, and the mean ratio at each size."""

    def by_size(runs: pd.DataFrame) -> str:
        return ", ".join(f"{size:,}: {mean:.2f}" for size, mean in runs.groupby("n_train")["ratio"].mean().items())

    for (task, n_layers), runs in ratios.groupby(list(CURVE)):
        if not ((found["task"] == task) & (found["n_layers"] == n_layers)).any():
            why = "at most one size is better than chance on its training problems"
            yield f"{task}, L{n_layers}: cannot tell: {why} ({by_size(runs)})"
    for row in found.to_dict("records"):
        runs = ratios[(ratios["task"] == row["task"]) & (ratios["n_layers"] == row["n_layers"])]
        ended = ", ".join(f"{n} {name or 'fixed'}" for name, n in runs["ended"].value_counts().items())
        sizes = (int(runs["n_train"].min()), int(runs["n_train"].max()))
        ends = [said(end, sizes) for end in (row["threshold"], row["ci_low"], row["ci_high"])]
        threshold = f"N* = {ends[0]} [{ends[1]}, {ends[2]}]"
        yield f"{row['task']}, L{row['n_layers']}: {threshold} ({row['seeds']} seeds; {by_size(runs)}; {ended})"


def said(threshold: float, sizes: tuple[int, int]) -> str:
    """A threshold in words, where it is beyond the range too, and an end of an interval that one seed cannot have."""
    if np.isnan(threshold):
        return "not known"
    if threshold == 0:
        return f"below {sizes[0]:,}"
    return f"{threshold:,.0f}" if np.isfinite(threshold) else f"above {sizes[1]:,}"


if __name__ == "__main__":
    script(main, __doc__)
