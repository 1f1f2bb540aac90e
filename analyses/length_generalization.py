"""Which positions let a model that was trained on at most 6 operands answer up to 12, directly and with a trace?

After Kazemnejad et al. 2023 (arXiv 2305.19466): of decoders trained on short problems those without positions went
furthest, and a scratchpad helped on some. Here the schemes are learned vectors ("standard"), fixed waves,
rotary, ALiBi (Press et al. 2022, arXiv 2108.12409) and none. Accuracies are of held-out problems, over seeds: mean,
lowest, highest. A scheme that solves nothing here is not shown to be unable to: other sizes and data may. Another grid
is asked likewise, up to its own longest length where that is more: `pause_parity`, dots before the answer (London &
Kanade 2025, arXiv 2505.21024, by length).

    cotinterp sweep analyses/grids/length_generalization.toml --root ROOT
    python -m analyses.length_generalization [--quick] [--root ROOT] [--table FILE] [--grid pause_parity]
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analyses.publishing import heldout_of_each, of_each_run, publish
from cotinterp import accuracy_by_k
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.training.checkpoints import Run

OUT = Path("out/length_generalization")
LONGEST = 12
KEYS = ["task", "regime", "positions"]


def main(
    quick: bool = False,
    root: Path | None = None,
    table: Path | None = None,
    grid: str = OUT.name,
    out: Path = OUT,
    problems: int = 300,
) -> list[str]:
    """Measure the runs under `root`, or read the `table` of an earlier look, publish, and return the answer in words.

    `quick` trains tiny runs, whose numbers mean nothing.
    """
    by_run = of_each_run(grid, measured, quick, root, table, problems)
    groups = by_run.groupby([*KEYS, "k", "k_max"])
    by_k = groups["accuracy"].agg(["mean", "min", "max", "size"])
    by_k = by_k.assign(short=groups["ended"].agg(lambda ended: (ended == "budget").sum())).reset_index()
    figures = {
        f"{task}_{regime}": lines(
            rows,
            x="k",
            y="mean",
            low="min",
            high="max",
            color="positions",
            bounds=(0, 1),
            title=f"{task}, {regime}: held-out accuracy, trained on at most {rows['k_max'].max()} operands",
        )
        for (task, regime), rows in by_k.groupby(["task", "regime"], sort=False)
    }
    return publish(out, tables={"by_run": by_run, "by_k": by_k}, figures=figures, answer=list(said(by_k)))


def measured(run: Run, problems: int) -> pd.DataFrame:
    """Accuracy of one run on held-out problems of each length up to LONGEST, or its own longest."""
    spec, asked = run.spec, heldout_of_each(run, max(LONGEST, run.spec.k_max), problems)
    frame = accuracy_by_k(run.model, run.task, spec.regime, asked, run_seed=spec.seed).frame()
    return frame.assign(positions=spec.model.positions, k_max=spec.k_max, ended=run.metadata.get("ended", ""))


def said(by_k: pd.DataFrame) -> Iterator[str]:
    """A line by scheme for each task and regime: accuracy at the longest length of training, the next two and the last.

    Where nothing longer is asked: at every fourth length.
    """
    for (task, regime), rows in by_k.groupby(["task", "regime"], sort=False):
        beyond = {str(name): of for name, of in rows.groupby("positions", sort=False)}
        for name, of in sorted(beyond.items(), key=lambda pair: -pair[1]["mean"].iloc[-1]):
            longer = of["k"] - of["k_max"]
            told = of[longer.isin([0, 1, 2, longer.max()]) if longer.max() > 0 else longer % 4 == 0]
            lengths = [f"K = {x.k}: {x.mean:.2f} ({x.min:.2f} to {x.max:.2f})" for x in told.itertuples()]
            seeds = f"{of['size'].iloc[-1]} seeds, {of['short'].iloc[-1]} ended by their budget"
            yield f"{task}, {regime}, {name} ({seeds}): {', '.join(lengths)}"


if __name__ == "__main__":
    script(main, __doc__)
