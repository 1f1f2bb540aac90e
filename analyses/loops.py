"""Does a block that is run four times do what four blocks do, or what one does?

After Saunshi et al. 2025 (arXiv 2502.17416): on tasks of many steps a block run in loops came near to a model of as
many layers, with a fraction of its parameters. One block, one block four times over (tied weights) and four blocks on
the same problems; nothing is written. Accuracies are of held-out problems, where every state is a target (`tagging`) of
the last one; over seeds: mean, lowest, highest. What loops reach one block can, too, if its passes are counted as
depth; what they do not reach may want other weights or training.

    cotinterp sweep analyses/grids/loops.toml --root ROOT
    python -m analyses.loops [--quick] [--root ROOT] [--table FILE]
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analyses.publishing import heldout_of_each, of_each_run, publish
from cotinterp import accuracy_by_k
from cotinterp.behavior.tagging import tag_accuracy
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.training.checkpoints import Run

OUT = Path("out/loops")
KEYS = ["task", "shape"]
LEAST = 5
"""Operands of the shortest words of `s5-words` of which enough are held out; tiny runs have fewer."""
SHARE = 0.5
"""Of the way from one block to four blocks that loops have to go to be said to do what layers do."""


def main(
    quick: bool = False, root: Path | None = None, table: Path | None = None, out: Path = OUT, problems: int = 300
) -> list[str]:
    """Measure the runs under `root`, or read the `table` of an earlier look, publish, and return the answer in words.

    `quick` trains tiny runs, whose numbers mean nothing.
    """
    by_run = of_each_run("loops", measured, quick, root, table, problems)
    by_k = by_run.groupby([*KEYS, "k"], sort=False)["accuracy"].agg(["mean", "min", "max", "size"]).reset_index()
    figure = lines(
        by_k, x="k", y="mean", low="min", high="max", color="shape", facet="task", bounds=(0, 1),
        title="Right without writing, by layers x loops: mean, lowest and highest seed", x_title="operands K",
        y_title="share of held-out problems right",
    )  # fmt: skip
    tables = {"by_run": by_run, "by_k": by_k}
    return publish(out, tables=tables, figures={"by_k": figure}, answer=list(said(by_run, by_k)))


def measured(run: Run, problems: int) -> pd.DataFrame:
    """Accuracy of one run on held-out problems of each length."""
    spec, asked = run.spec, heldout_of_each(run, max(run.spec.k_max, LEAST), problems)
    if spec.regime == "tagging":  # the state behind the last operand, where all states are targets
        frame = tag_accuracy(run.model, run.task, spec.regime, asked, run_seed=spec.seed).frame()
        frame = frame[frame["reading"] == "tags"]
    else:
        frame = accuracy_by_k(run.model, run.task, spec.regime, asked, run_seed=spec.seed).frame()
    shape = f"{spec.model.n_layers} x {spec.model.loops}"
    return frame.assign(shape=shape, ended=run.metadata.get("ended", ""), updates=int(run.metadata["step"]))


def said(by_run: pd.DataFrame, by_k: pd.DataFrame) -> Iterator[str]:
    """The longest problems by shape (layers x loops), and where loops stand between one block and four."""
    for task, rows in by_k.groupby("task", sort=False):
        last = rows[rows["k"] == rows["k"].max()].set_index("shape")
        for shape, row in last.iterrows():
            runs = by_run[(by_run["task"] == task) & (by_run["shape"] == shape)].drop_duplicates("run_seed")
            ended = ", ".join(f"{n} {word}" for word, n in runs["ended"].replace("", "?").value_counts().items())
            spread = f"{row['min']:.2f} to {row['max']:.2f}, {int(row['size'])} seeds; ended: {ended}"
            spread += f", after {runs['updates'].min():,} to {runs['updates'].max():,} updates"
            yield f"{task}, {shape}: {row['mean']:.2f} at K = {row['k']} ({spread})"
        if (by_run.loc[by_run["task"] == task, "ended"] == "budget").any():
            yield f"{task}: runs were ended by their budget, so nothing is concluded"
        else:
            yield f"{task}: {placed(last)}"


def placed(last: pd.DataFrame) -> str:
    """How much of the way from one block to four blocks the loops go; nothing where there is no way, or few seeds."""
    if not {"1 x 1", "1 x 4", "4 x 1"} <= set(last.index) or (last["size"] < 3).any():
        return "fewer than three seeds of each shape, so nothing is concluded"
    one, looped, four = (float(last["mean"][shape]) for shape in ("1 x 1", "1 x 4", "4 x 1"))
    if last["max"]["1 x 1"] >= last["min"]["4 x 1"]:
        return "four blocks are not told apart from one, so loops stand nowhere between them"
    share = (looped - one) / (four - one)
    word = "nearer to four blocks" if share > SHARE else "nearer to one block"
    return f"loops go {share:.0%} of the way from one block to four: {word}"


if __name__ == "__main__":
    script(main, __doc__)
