"""Does a rationale in the training data change an encoder, when it is never read, and when it is a part of the input?

A bidirectional model of the same size on the same problems names the answer as a label. Of traces that enter neither
input nor loss it can learn nothing: the weights are equal bit for bit, which the script looks up, run by run. A trace
that is given before the label is asked can be read off, and is missed where it does not stand: what is lost without it
is the price of that crutch. Held-out problems; over seeds: mean, lowest, highest.

    cotinterp sweep analyses/grids/encoder_control.toml --root ROOT
    python -m analyses.encoder_control [--quick] [--root ROOT] [--table FILE]
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analyses.publishing import heldout_of_each, of_each_run, publish
from cotinterp import accuracy_by_k
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.training.checkpoints import Run

OUT = Path("out/encoder_control")
SETUPS = {
    ("label", "label"): "no rationale",
    ("label-trace-unread", "label"): "rationale in the data, never read",
    ("label-after-trace", "label-after-trace"): "rationale in the input, given",
    ("label-after-trace", "label"): "rationale in the input, missing",
}
"""What was taught, how it is asked, and what that is."""


def main(
    quick: bool = False, root: Path | None = None, table: Path | None = None, out: Path = OUT, problems: int = 300
) -> list[str]:
    """Measure the runs under `root`, or read the `table` of an earlier look, publish, and return the answer in words.

    `quick` trains tiny runs, whose numbers mean nothing.
    """
    by_run = of_each_run("encoder_control", measured, quick, root, table, problems)
    by_k = by_run.groupby(["task", "setup", "k"])["accuracy"].agg(["mean", "min", "max", "size"]).reset_index()
    title = "Held-out accuracy of a bidirectional classifier"
    figure = lines(
        by_k, x="k", y="mean", low="min", high="max", color="setup", facet="task", bounds=(0, 1), title=title
    )
    answer = [*equal_weights(by_run), *said(by_k)]
    return publish(out, tables={"by_run": by_run, "by_k": by_k}, figures={"by_k": figure}, answer=answer)


def measured(run: Run, problems: int) -> pd.DataFrame:
    """Held-out accuracy of one run, in each way in which it is asked."""
    spec, found, asked = run.spec, [], heldout_of_each(run, run.spec.k_max, problems)
    for (taught, regime), setup in SETUPS.items():
        if taught == spec.regime:
            result = accuracy_by_k(run.model, run.task, regime, asked, run_seed=spec.seed)
            found.append(result.frame().assign(taught=taught, setup=setup))
    return pd.concat(found).assign(weight_hash=run.weight_hash, ended=run.metadata.get("ended", ""))


def equal_weights(by_run: pd.DataFrame) -> Iterator[str]:
    """At how many seeds the weights with an unread rationale in the data are those without one, bit for bit."""
    for task, rows in by_run.groupby("task", sort=False):
        hashes = rows.drop_duplicates(["taught", "run_seed"]).pivot(
            index="run_seed", columns="taught", values="weight_hash"
        )
        both = hashes[["label", "label-trace-unread"]].dropna()
        equal = int((both["label"] == both["label-trace-unread"]).sum())
        yield f"{task}: weights with and without rationales that are never read: equal at {equal} of {len(both)} seeds"


def said(by_k: pd.DataFrame) -> Iterator[str]:
    """The longest problems, by setup."""
    for (task, setup), rows in by_k.groupby(["task", "setup"], sort=False):
        last = rows.iloc[-1]
        spread = f"({last['min']:.2f} to {last['max']:.2f}, {last['size']} seeds)"
        yield f"{task}, {setup}: {last['mean']:.2f} {spread} at K = {last['k']}"


if __name__ == "__main__":
    script(main, __doc__)
