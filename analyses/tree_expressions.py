"""Does depth help a direct answer to an arithmetic expression, and do three layers that write the steps need no more?

After Feng et al. 2023 (arXiv 2305.15408), on expressions modulo 11 of K leaves, K - 1 operations. Published there (4
seeds, d_model 256): at 4, 5, 6 operations three layers with a written derivation are right in 1.00 of the problems;
without it 0.73, 0.37, 0.25 at three layers, 0.91, 0.32, 0.25 at four and 0.97, 0.70, 0.49 at five. Compared here in
direction alone: models are smaller, trained far less, and write another derivation (`ExpressionsMod11` says which).

    python -m analyses.tree_expressions [--quick] [--table sweep.csv]
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analyses.publishing import publish, tiny_sweep
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.sweeps.table import read_sweep_table

TABLE, OUT = Path("analyses/out/tree_expressions.csv"), Path("out/tree_expressions")
LEAST = 30
COT_DEPTH, NEAR_ONE = 3, 0.95
GAIN = 0.1
"""Least difference of two accuracies that counts: twice the half-width of the interval of one over 300 problems."""
PUBLISHED = {
    ("direct", 3): (0.729, 0.374, 0.254),
    ("direct", 4): (0.914, 0.322, 0.252),
    ("direct", 5): (0.968, 0.699, 0.491),
}
PUBLISHED_COT = (1.0, 0.9999, 0.9998)


def main(quick: bool = False, table: Path | None = None, out: Path = OUT) -> list[str]:
    """Compare, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing."""
    with TemporaryDirectory() as scratch:
        sweep = tiny_sweep("tree_expressions", Path(scratch), table) if quick else read_sweep_table(table or TABLE)
    held = sweep[(sweep["split"] == "heldout") & (sweep["n"] >= LEAST)]
    found = held.groupby(["regime", "n_layers", "k"])["accuracy"].agg(["mean", "min", "max", "size"]).reset_index()
    found = found.rename(columns={"mean": "accuracy", "size": "seeds"}).assign(operations=found["k"] - 1)
    found["model"] = found["regime"] + " L" + found["n_layers"].astype(str)
    figure = lines(
        found, x="operations", y="accuracy", low="min", high="max", color="model", bounds=(0.0, 1.0),
        title="Held-out accuracy, mean and range of the seeds", y_title="share of answers that are right",
    )  # fmt: skip
    tables = {"tree_expressions": found, "published": published()}
    return publish(out, tables=tables, figures={"tree_expressions": figure}, answer=[*listed(found), *compared(found)])


def published() -> pd.DataFrame:
    """Feng et al.'s accuracies, as the log files of the authors' code give them."""
    cells = PUBLISHED | {("cot", 3): PUBLISHED_COT}
    rows = [(*model, n, value) for model, row in cells.items() for n, value in zip((4, 5, 6), row, strict=True)]
    return pd.DataFrame(rows, columns=["regime", "n_layers", "operations", "accuracy"])


def listed(found: pd.DataFrame) -> Iterator[str]:
    """Mean accuracy by number of operations, a line for each model."""
    for (regime, depth), rows in found.groupby(["regime", "n_layers"]):
        cells = [f"{r.operations}: {r.accuracy:.2f} [{r.min:.2f}-{r.max:.2f}]" for r in rows.itertuples(index=False)]
        yield f"expressions-mod11, {regime}, {depth} layers, by operations: {', '.join(cells)}"


def compared(found: pd.DataFrame) -> Iterator[str]:
    """The two statements, each with what was found."""
    of = found.set_index(["regime", "n_layers", "operations"])["accuracy"]
    direct = of["direct"].unstack("n_layers")
    for operations, row in direct.iterrows():
        rise = row.iloc[-1] - row.iloc[0]
        verdict = "agrees" if rise > GAIN else "DIFFERS" if rise < -GAIN else "cannot tell, no depth learned more here"
        yield (
            f"direct at {operations} operations, {row.index[0]} to {row.index[-1]} layers: {row.iloc[0]:.2f} to "
            f"{row.iloc[-1]:.2f} (depth helps): {verdict}"
        )
    written = found[(found["regime"] == "cot") & (found["n_layers"] == COT_DEPTH)]
    if written.empty:
        yield f"cot, {COT_DEPTH} layers: not in this table"
    for operations, value in zip(written["operations"], written["accuracy"], strict=True):
        best = direct.loc[operations].max()
        short = "in part, above direct and not near 1" if value > best + GAIN else "DIFFERS"
        verdict = "agrees" if value >= NEAR_ONE else short
        cells = f"{value:.2f}, the best direct one {best:.2f}"
        yield f"cot, {COT_DEPTH} layers, {operations} operations: {cells}: {verdict}"


if __name__ == "__main__":
    script(main, __doc__)
