"""By which algorithm does a direct model combine its operands?

What attention brings to the end of the prompt, and what stands at the operands, is rebuilt from variables of the task
(`mechanism.variables.rebuilding`); what keeps the answer is all that is needed there. A model that adds in one average
needs operands one by one from the first attention and nothing else; one that composes needs products from the second.
Held-out problems, first symbol of the answer; models of two layers; means over seeds, 95% intervals by Student's t.

    python -m analyses.direct_algorithms [--quick] [--table FILE]
    cotinterp sweep analyses/grids/circuit_seeds.toml --root ROOT; python -m analyses.direct_algorithms --root ROOT
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import of_each_run, over_seeds, publish
from cotinterp import Site, Subject, sample_problems
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.mechanism.variables.rebuilding import Account, rebuilt
from cotinterp.training.checkpoints import Run
from cotinterp.transcripts.roles import Place, Role

NAME, TABLE, K, FITTED = "direct_algorithms", Path("analyses/out/direct_algorithms.csv"), 4, 3000
"""Operands, and problems of the training side that accounts are fitted on, all there are where fewer exist."""
SHOWN = ("kept", "low", "high", "least", "most", "shuffled", "explained")
END: Place = (Role.PROMPT_END, -1)
FIRST, SECOND, STREAM = Site("attn_out", 0), Site("attn_out", 1), Site("resid_pre", 1)
ONE_BY_ONE = tuple(f"x_{i}" for i in range(K))
NEIGHBORS = tuple(f"x_{i},x_{i + 1}" for i in range(K - 1))
TOTALS = ("x_0", *(f"s_{i}" for i in range(1, K)))


def main(
    quick: bool = False,
    root: Path | None = None,
    table: Path | None = None,
    problems: int = 250,
    out: Path = Path(f"out/{NAME}"),
) -> list[str]:
    """Measure the runs under `root`, or read `table`, publish, and return the answer in words; `quick`: tiny runs."""
    given = table if quick or root is not None else table or TABLE
    found = of_each_run("circuit_seeds", measured, quick, root, given, problems, NAME)
    rows = [(*key, len(part), *summed(part)) for key, part in found.groupby(["task", "account"], sort=False)]
    means = pd.DataFrame(rows, columns=["task", "account", "seeds", *SHOWN])
    figure = lines(
        means, x="account", y="kept", low="low", high="high", color="task", bounds=(0, 1), x_title=" ",
        title="Answers that rebuilt activations keep: mean and interval over seeds", y_title="share of problems right",
    )  # fmt: skip
    return publish(out, tables={NAME: found, "means": means}, figures={NAME: figure}, answer=list(said(means)))


def accounts() -> dict[str, Account]:
    """What stands where, declared when one seed of each task had been looked at."""
    end: dict[str, tuple[Site, dict[str, tuple[str, ...]]]] = {
        "first attention": (FIRST, {"operands": ONE_BY_ONE, "total": TOTALS[-1:]}),
        "behind the first block": (STREAM, {"operands": ONE_BY_ONE, "total": TOTALS[-1:]}),
        "second attention": (SECOND, {"nothing": (), "operands": ONE_BY_ONE, "neighbors": NEIGHBORS, "totals": TOTALS}),
    }
    found: dict[str, Account] = {
        f"{where}: {what}": {(site, END): of} for where, (site, each) in end.items() for what, of in each.items()
    }
    found["both attentions: operands, then totals"] = {(FIRST, END): ONE_BY_ONE, (SECOND, END): TOTALS}
    operators: Account = {(STREAM, (Role.OPERATOR, i)): () for i in range(1, K)}
    up_to = [(*ONE_BY_ONE[: i + 1], *NEIGHBORS[:i], *TOTALS[1 : i + 1]) for i in range(K)]
    each_own: list[tuple[str, ...]] = [(x,) for x in ONE_BY_ONE]
    for what, at in (("nothing", [()] * K), ("own", each_own), ("all up to it", up_to)):
        found[f"at the operands: {what}"] = {**operators, **{(STREAM, (Role.OPERAND, i)): at[i] for i in range(K)}}
    return found


def measured(run: Run, n: int) -> pd.DataFrame:
    """A row for each account of a run that answers at once; none for others."""
    if run.spec.regime != "direct":
        return pd.DataFrame()
    fitted = sample_problems(run.task, K, FITTED, split="train", rng=np.random.default_rng(0))
    asked = Subject.of_run(run).heldout(n, k=K)
    result = rebuilt(
        run.model, run.task, "direct", fitted, asked, accounts(), readout=(Role.ANSWER, K - 1), labels=run.labels
    )
    return result.frame().round(4)


def summed(part: pd.DataFrame) -> tuple[float, ...]:
    """Kept: mean, interval, least and most over seeds; means of the values dealt out anew and of what is explained."""
    kept = part["kept"].to_numpy()
    return (*over_seeds(kept), kept.min(), kept.max(), part["shuffled"].mean(), part["explained"].mean())


def said(means: pd.DataFrame) -> Iterator[str]:
    """A line for each account."""
    for one in means.itertuples():
        of = f"{one.kept:.2f} [{one.low:.2f}, {one.high:.2f}] (seeds {one.least:.2f} to {one.most:.2f})"
        yield f"{one.task}, {one.account}: {of}; dealt out anew {one.shuffled:.2f}; explains {one.explained:.2f}"


if __name__ == "__main__":
    script(main, __doc__)
