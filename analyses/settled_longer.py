"""Did training that had settled stop too early?

A run until it is converged ends as settled where nothing has moved for 70% of its updates, which is a bet. Some of them
went on from their stable phase until nothing had moved for four times as long: whether something did is the answer.

    python -m analyses.settled_longer [--quick] [--table sweep.csv] [--longer sweep.csv]
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analyses.publishing import publish, tiny_sweep
from cotinterp.behavior.generalization import RUN, ratio_by_run
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.sweeps.table import read_sweep_table

TABLE, LONGER = (Path(f"analyses/out/{name}.csv") for name in ("memory_or_algorithm", "settled_longer"))
AGAIN = 4.1
"""Times as many updates, from which on something has moved: 4 where nothing has, by the patience of the longer runs."""


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
    ratios = ratio_by_run(sweep), ratio_by_run(later)
    gone_on = went_on(*ratios)
    both, slugs = pd.concat(ratios), [*gone_on["slug"], *gone_on["slug_later"]]
    drawn = both[both["slug"].isin(slugs)] if slugs else both
    drawn = drawn.assign(run=[", ".join(map(str, run)) for run in drawn[list(RUN)].itertuples(index=False)])
    drawn = drawn.drop_duplicates(["run", "step"])
    figure = lines(
        drawn, x="step", y="ratio", color="run", bounds=(-0.2, 1.0), x_title="updates", y_title="generalization ratio",
        title="Generalization ratio when settled, and later: task, layers, training problems, seed",
    )  # fmt: skip
    return publish(out, tables={"longer": gone_on}, figures={"longer": figure}, answer=[*kept(gone_on)])


def went_on(ratios: pd.DataFrame, later: pd.DataFrame) -> pd.DataFrame:
    """Runs that had settled, beside those that went on from there until nothing had moved for four times as long.

    `moved` says that something did: the longer run took more than that, or did not settle again.
    """
    both = ratios[ratios["ended"] == "settled"].merge(later, on=list(RUN), suffixes=("", "_later"))
    both = both[both["step_later"] > both["step"]]
    return both.assign(moved=(both["ended_later"] != "settled") | (both["step_later"] > AGAIN * both["step"]))


def kept(gone_on: pd.DataFrame) -> Iterator[str]:
    """What four times as many updates changed in runs that had settled."""
    for row in gone_on.to_dict("records"):
        name = f"{row['task']}, L{row['n_layers']}, {row['n_train']:,} problems, seed {row['run_seed']}"
        ratios = f"ratio {row['ratio']:.2f} after {row['step']:,} updates, {row['ratio_later']:.2f} after"
        yield f"{name}: {ratios} {row['step_later']:,} ({'moved' if row['moved'] else 'nothing moved'})"
    yield f"of {len(gone_on)} runs that had settled and went on, {int(gone_on['moved'].sum())} moved"


if __name__ == "__main__":
    script(main, __doc__)
