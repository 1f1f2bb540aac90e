"""How does accuracy fall with the number of operands, with and without written totals?

The source expects direct answers to fail beyond K = L + 1 operands and written totals to hold up; its rivals expect no
such edge (a sum is one attention average; an associative fold needs log2 K levels). Every output is free-running: the
model writes alone until it stops. Train problems are ones it was trained on, held-out ones it has never seen.

    python -m analyses.accuracy_by_k [--quick]
"""

from collections.abc import Hashable, Mapping
from pathlib import Path

import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import evaluate_run
from cotinterp.cli.parsing import script
from cotinterp.figures import accuracy_figure


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/accuracy_by_k")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    runs = reference_runs(root)
    table = pd.concat([evaluate_run(run, max_per_k=20 if quick else 1000).frame() for run in runs], ignore_index=True)
    figures = {f"accuracy_{task}": accuracy_figure(rows) for task, rows in table.groupby("task", sort=False)}
    return publish(out, tables={"accuracy": table, "gap": gaps(table)}, figures=figures, answer=answer(table))


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Held-out accuracy of `cot` minus `direct`, and of train minus held-out, by task and K.

    The interval of a difference treats the two rates as independent (Newcombe 1998, method 10, from Wilson's limits).
    """
    rows = []
    for (task, k), cells in table.groupby(["task", "k"], sort=False):
        at = {(row["regime"], row["split"]): row for row in cells.to_dict("records")}
        pairs = {"cot - direct, heldout": (("cot", "heldout"), ("direct", "heldout"))}
        pairs |= {
            f"train - heldout, {regime}": ((regime, "train"), (regime, "heldout")) for regime in ("direct", "cot")
        }
        for name, (first, second) in pairs.items():
            if first in at and second in at:
                rows.append({"task": task, "k": k, "difference": name, **difference(at[first], at[second])})
    return pd.DataFrame(rows)


def difference(first: Mapping[Hashable, float], second: Mapping[Hashable, float]) -> dict[str, float]:
    """The difference of two rates with its 95% interval."""
    a, b = first["accuracy"], second["accuracy"]
    low = ((a - first["ci_low"]) ** 2 + (second["ci_high"] - b) ** 2) ** 0.5
    high = ((first["ci_high"] - a) ** 2 + (b - second["ci_low"]) ** 2) ** 0.5
    return {"value": a - b, "ci_low": a - b - low, "ci_high": a - b + high}


def answer(table: pd.DataFrame) -> list[str]:
    """One line a task, regime and split: accuracy at each K."""
    lines = []
    for (task, regime, split), rows in table.groupby(["task", "regime", "split"], sort=False):
        cells = ", ".join(f"K={k}: {rate:.1%}" for k, rate in zip(rows["k"], rows["accuracy"], strict=True))
        lines.append(f"{task} {regime} {split}: {cells}")
    return lines


if __name__ == "__main__":
    script(main, __doc__)
