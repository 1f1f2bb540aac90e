"""Does the depth that a word over a group needs grow with its length, and only where the group does not commute?

After Merrill, Petty & Sabharwal 2024 (arXiv 2404.08819): every operand of the prompt has its state as a target, and the
least depth with more than 90% right is read off for each length. There it is flat for commutative groups and grows for
the others. Two readings of a word of n elements in one pass: `tags`, the state after all of them, and the free-running
answer. States of held-out words are no targets, not even where they begin a longer training word.

    python -m analyses.tagging_groups [--quick] [--table sweep.csv]
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from analyses.publishing import publish, tiny_sweep
from cotinterp import get_task
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.sweeps.table import read_sweep_table

TABLE, OUT = Path("analyses/out/tagging_groups.csv"), Path("out/tagging_groups")
SOLVED, LEAST = 0.9, 30
PAIRS = (("z6", "s3"), ("z60", "a4xz5"), ("z60", "a5"))


def main(quick: bool = False, table: Path | None = None, out: Path = OUT) -> list[str]:
    """Compare, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing."""
    with TemporaryDirectory() as scratch:
        sweep = tiny_sweep("tagging_groups", Path(scratch), table) if quick else read_sweep_table(table or TABLE)
    depths = least_depths(sweep[(sweep["split"] == "heldout") & (sweep["n"] >= LEAST)])
    drawn = depths[depths["reading"] == "tags"].assign(least=depths["any_seed"].replace(np.inf, np.nan))
    figure = lines(drawn, x="k", y="least", color="task", title="Least depth with more than 90% of the states right")
    cut_short = set(sweep.loc[sweep["ended"] == "budget", "task"])
    answer = [*listed(depths), *growth(depths, cut_short), *compared(depths, cut_short)]
    return publish(out, tables={"least_depth": depths}, figures={"least_depth": figure}, answer=answer)


def least_depths(measured: pd.DataFrame) -> pd.DataFrame:
    """For each task, reading and length the least depth that solves it: in any seed, in every seed; inf where none."""
    rows = []
    for (task, reading, k), cell in measured.groupby(["task", "reading", "k"]):
        right = cell.assign(right=cell["accuracy"] > SOLVED).groupby("n_layers")["right"]
        least = [found.index[found].min() if found.any() else np.inf for found in (right.any(), right.all())]
        rows.append((task, reading, k, *least, cell["n_layers"].max(), cell["accuracy"].max()))
    return pd.DataFrame(rows, columns=["task", "reading", "k", "any_seed", "every_seed", "deepest", "best_accuracy"])


def listed(depths: pd.DataFrame) -> Iterator[str]:
    """The least depth at every length, inf where no depth was enough."""
    for (task, reading), rows in depths.groupby(["task", "reading"]):
        cells = [f"{row.k}: {row.any_seed:.0f}/{row.every_seed:.0f}" for row in rows.itertuples()]
        yield f"{task}, {reading}: least depth in any seed/in every seed by length {', '.join(cells)}"


STILL = "cannot tell, runs were ended by their budget before they had converged"


def growth(depths: pd.DataFrame, cut_short: Collection[str] = ()) -> Iterator[str]:
    """Whether the least depth grows with length, for commutative groups and for others, beside what the paper says.

    That a depth is enough is shown by a run that solves the length; that it is not, by no run that was `cut_short`.
    """
    for task, rows in depths[depths["reading"] == "tags"].groupby("task"):
        commutes, least = get_task(str(task)).commutative, rows.sort_values("k")["any_seed"]
        grows, known = bool(least.max() > least.min()), bool(np.isfinite(least).any())
        found = ("agrees" if grows != commutes else "DIFFERS") if known else "cannot tell"
        found = STILL if grows and task in cut_short else found
        unsolved = int((~np.isfinite(least)).sum())
        kind = "commutative" if commutes else "not commutative"
        shape = "grows" if grows else "is flat" if known else "is beyond this budget"
        budget = f", {unsolved} of {len(least)} lengths solved by no depth at this budget" if unsolved else ""
        yield f"{task} ({kind}): least depth {shape}{budget}: {found}"


def compared(depths: pd.DataFrame, cut_short: Collection[str] = ()) -> Iterator[str]:
    """At how many lengths a group that does not commute needs more depth than the commutative one of its order."""
    least = depths[depths["reading"] == "tags"].pivot(index="k", columns="task", values="any_seed")
    for calm, other in (pair for pair in PAIRS if set(pair) <= set(least)):
        more, less = int((least[other] > least[calm]).sum()), int((least[other] < least[calm]).sum())
        found = "agrees" if more and not less else "DIFFERS" if less else "cannot tell"
        found = STILL if {calm, other} & set(cut_short) else found
        yield f"{other} needs more depth than {calm} at {more} lengths and less at {less}: {found}"


if __name__ == "__main__":
    script(main, __doc__)
