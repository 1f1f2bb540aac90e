"""Did training that had settled stop too early?

A run until it is converged ends as settled where nothing has moved for 70% of its updates, which is a bet. Some of them
went on from their stable phase to four times their updates and more, whatever moved: what changed on held-out problems
is the answer.

    python -m analyses.settled_longer [--quick] [--table sweep.csv] [--longer sweep.csv]
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from scipy.stats import norm

from analyses.publishing import publish, tiny_sweep
from cotinterp.behavior.generalization import LEAST_HELD_OUT, RUN, ratio_by_run
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.sweeps.table import read_sweep_table

TABLE, LONGER = (Path(f"analyses/out/{name}.csv") for name in ("memory_or_algorithm", "settled_longer"))
LONG = 3.9
"""Times as many updates, from which on a run has gone on for four times as long; budgets were rounded."""
MOVED = 0.05
"""Least change of a length's held-out accuracy that counts, as in the criterion; more where chance would make more."""
LEVEL = 0.05
"""Chance that any length of any run is said to have moved where none has, at most (Bonferroni, two-sided)."""


def main(
    quick: bool = False,
    table: Path | None = None,
    longer: Path | None = None,
    out: Path = Path("out/settled_longer"),
) -> list[str]:
    """Compare, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing."""
    if quick:
        with TemporaryDirectory() as scratch:
            sweep = later = tiny_sweep("settled_longer", Path(scratch), table, longer)
    else:
        sweep, later = read_sweep_table(table or TABLE), read_sweep_table(longer or LONGER)
    runs = pd.concat([later, sweep]).drop_duplicates(["task", "slug", "split", "reading", "k"])
    gone_on, both = went_on(runs), ratio_by_run(runs)
    slugs = [*gone_on["slug"], *gone_on["slug_later"]]
    drawn = both[both["slug"].isin(slugs)] if slugs else both
    drawn = drawn.assign(
        run=[f"{task}, L{depth}, seed {seed}" for task, depth, _, seed in drawn[list(RUN)].itertuples(index=False)]
    )
    drawn = drawn.drop_duplicates(["run", "step"])
    figure = lines(
        drawn, x="step", y="ratio", color="run", bounds=(-0.2, 1.0), x_title="updates", y_title="generalization ratio",
        title="Generalization ratio when settled, and later",
    )  # fmt: skip
    return publish(out, tables={"longer": gone_on}, figures={"longer": figure}, answer=[*kept(gone_on)])


def went_on(table: pd.DataFrame) -> pd.DataFrame:
    """Runs that had settled, beside the longest of each that went on from there for four times as many updates.

    `change` is that of the held-out accuracy of the length `k` where it is largest for what counts (MOVED), on the
    problems that the settled run was asked; `moved` says that it counts.
    """
    ratios = ratio_by_run(table)
    both = ratios[ratios["ended"] == "settled"].merge(ratios, on=list(RUN), suffixes=("", "_later"))
    both = both[both["step_later"] >= LONG * both["step"]].sort_values("step_later")
    both = both.drop_duplicates(list(RUN), keep="last")
    held = table[(table["split"] == "heldout") & (table["reading"] == "answer") & (table["n"] >= LEAST_HELD_OUT)]
    held = held[["task", "slug", "k", "n", "accuracy"]]
    later = held.rename(columns={"slug": "slug_later"})
    both = both.merge(held, on=["task", "slug"]).merge(later, on=["task", "slug_later", "k"], suffixes=("", "_later"))
    middle = (both["accuracy"] + both["accuracy_later"]) / 2
    errors = norm.isf(LEVEL / 2 / max(1, len(both))) * np.sqrt(2 * middle * (1 - middle) / both["n"])
    least = np.maximum(MOVED, errors)
    both = both.assign(change=both["accuracy_later"] - both["accuracy"])
    size: pd.Series = both["change"].abs() / least
    both = both.assign(moved=size > 1, size=size).sort_values("size").drop_duplicates(list(RUN), keep="last")
    return both.drop(columns="size").sort_values(list(RUN))


def kept(gone_on: pd.DataFrame) -> Iterator[str]:
    """What four times as many updates changed in runs that had settled."""
    for row in gone_on.to_dict("records"):
        name = f"{row['task']}, L{row['n_layers']}, {row['n_train']:,} problems, seed {row['run_seed']}"
        ratios = f"ratio {row['ratio']:.2f} after {row['step']:,} updates, {row['ratio_later']:.2f} after"
        ratios += f" {row['step_later']:,}"
        change = f"{100 * row['change']:+.1f} points ({'moved' if row['moved'] else 'within noise'})"
        yield f"{name}: {ratios}; most at K = {row['k']}, {change}"
    yield f"of {len(gone_on)} runs that had settled and went on, {int(gone_on['moved'].sum())} moved"


if __name__ == "__main__":
    script(main, __doc__)
