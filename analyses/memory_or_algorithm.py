"""From how many training problems on does a direct model find an algorithm, and does depth change that?

A table answers the problems that it was shown; an algorithm answers the others as well. N* is the number of training
problems from which the generalization ratio, (held out - chance) / (training - chance), passes one half, in models that
were trained until they had converged. Memory is the whole story of a task whose N* is beyond the range (Varma et al.
2023, arXiv 2309.02390; Liu et al. 2022, arXiv 2210.10749). Random labels have no rule, and so no N*.

That a run which settled would not have moved later is tested by runs that went on for four times as long.

    python -m analyses.memory_or_algorithm [--quick] [--table sweep.csv] [--longer sweep.csv]
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analyses.publishing import publish, tiny_sweep
from cotinterp import get_task
from cotinterp.behavior.generalization import HALF, guessing, size_thresholds
from cotinterp.cli.parsing import script
from cotinterp.depth.frontier import LEAST_PROBLEMS
from cotinterp.figures import lines
from cotinterp.sweeps.table import read_sweep_table

TABLE, OUT = Path("analyses/out/memory_or_algorithm.csv"), Path("out/memory_or_algorithm")
LONGER = Path("analyses/out/settled_longer.csv")
CURVE = ("task", "n_layers")
RUN = (*CURVE, "n_train", "run_seed")


def main(quick: bool = False, table: Path | None = None, longer: Path | None = None, out: Path = OUT) -> list[str]:
    """Compare, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing."""
    if quick:
        with TemporaryDirectory() as scratch:
            sweep = tiny_sweep("memory_or_algorithm", Path(scratch), table, longer)
        later = sweep
    else:
        sweep, later = read_sweep_table(table or TABLE), read_sweep_table(longer or LONGER)
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
    gone_on = went_on(ratios, ratio_by_run(later))
    tables = {"ratios": ratios, "thresholds": found, "longer": gone_on}
    figures = {"ratios": figure, "thresholds": threshold_figure(found, learned["n_train"])}
    return publish(out, tables=tables, figures=figures, answer=[*answer(found, ratios), *kept(gone_on)])


def threshold_figure(found: pd.DataFrame, sizes: pd.Series) -> go.Figure:
    """N* by depth and task with its interval; one that is beyond the range is drawn at the edge of it."""
    ends = ["threshold", "ci_low", "ci_high"]
    within = found.assign(**{end: found[end].clip(sizes.min(), sizes.max()) for end in ends})
    return lines(
        within,
        x="n_layers",
        y="threshold",
        low="ci_low",
        high="ci_high",
        color="task",
        title="N*: training problems from which on a direct model generalizes (at the edges: beyond the range)",
        x_title="layers",
        y_title="training problems",
    ).update_yaxes(type="log", range=[np.log10(sizes.min()) - 0.1, np.log10(sizes.max()) + 0.1])


def ratio_by_run(measured: pd.DataFrame) -> pd.DataFrame:
    """The ratio of every run over its lengths; NaN where it does no better than chance on its own training problems."""
    rows = []
    measured = measured[(measured["n"] > 0) & (measured["reading"] == "answer")]
    for (task, _), run in measured.groupby(["task", "slug"], sort=True):
        known, counted = get_task(str(task)), run[(run["split"] == "train") | (run["n"] >= LEAST_PROBLEMS)]
        by_split = counted.pivot(index="k", columns="split", values="accuracy").dropna()
        chance = np.array([guessing(known, int(k)) for k in by_split.index])
        held, trained = ((by_split[side] - chance).mean() for side in ("heldout", "train"))
        first = run.iloc[0]
        labels = (first[name] for name in (*RUN, "ended", "step", "slug"))
        rows.append((*labels, held / trained if trained > 0 else np.nan, by_split["train"].mean()))
    return pd.DataFrame(rows, columns=[*RUN, "ended", "step", "slug", "ratio", "train"])


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
        means = by_size(runs)
        ended = ", ".join(f"{n} {name or 'fixed'}" for name, n in runs["ended"].value_counts().items())
        sizes = (int(runs["n_train"].min()), int(runs["n_train"].max()))
        ends = [said(end, sizes) for end in (row["threshold"], row["ci_low"], row["ci_high"])]
        threshold = f"N* = {ends[0]} [{ends[1]}, {ends[2]}]"
        yield f"{row['task']}, L{row['n_layers']}: {threshold} ({row['seeds']} seeds; {means}; {ended})"


def went_on(ratios: pd.DataFrame, later: pd.DataFrame) -> pd.DataFrame:
    """Runs that had settled, beside those that went on from there until nothing had moved for four times as long.

    `moved` says that something did: the longer run took more than that, or did not settle again.
    """
    both = ratios[ratios["ended"] == "settled"].merge(later, on=list(RUN), suffixes=("", "_later"))
    both = both[both["step_later"] > both["step"]]
    return both.assign(moved=(both["ended_later"] != "settled") | (both["step_later"] > 4.1 * both["step"]))


def kept(gone_on: pd.DataFrame) -> Iterator[str]:
    """What four times as many updates changed in runs that had settled."""
    for row in gone_on.to_dict("records"):
        name = f"{row['task']}, L{row['n_layers']}, {row['n_train']:,} problems, seed {row['run_seed']}"
        ratios = f"ratio {row['ratio']:.2f} after {row['step']:,} updates, {row['ratio_later']:.2f} after"
        yield f"settled, {name}: {ratios} {row['step_later']:,} ({'moved' if row['moved'] else 'nothing moved'})"
    if len(gone_on):
        yield f"of {len(gone_on)} runs that had settled and went on, {int(gone_on['moved'].sum())} moved"


def said(threshold: float, sizes: tuple[int, int]) -> str:
    """A threshold in words, where it is beyond the range too, and an end of an interval that one seed cannot have."""
    if np.isnan(threshold):
        return "not known"
    if threshold == 0:
        return f"below {sizes[0]:,}"
    return f"{threshold:,.0f}" if np.isfinite(threshold) else f"above {sizes[1]:,}"


if __name__ == "__main__":
    script(main, __doc__)
