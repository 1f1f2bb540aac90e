"""Does an adapter teach what training of all weights teaches, and does one on mixed data do as much as two?

LoRA (Hu et al. 2021, arXiv 2106.09685) on a frozen model of another task, and of another regime of the same task; full
training, and ranks, on equal updates. The claim: an adapter helps less, for it brings out and formats what the frozen
model can do; and one on mixed data is better than two. An adapter is taken at the better of its rates, so that where it
falls short that is not the rate's fault. Accuracy is the mean over lengths on held-out problems.

    python -m analyses.lora [--quick] [--table sweep.csv]
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analyses.publishing import publish, tiny_grid, tiny_sweep
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.sweeps.grid import Grid, read_grid
from cotinterp.sweeps.table import read_sweep_table

GRID, TABLE, OUT = Path("analyses/grids/lora.toml"), Path("analyses/out/lora.csv"), Path("out/lora")
ARM, ALL = ["frozen", "asked", "data", "trained"], "all"
GAIN = 0.05
"""Least difference of two mean accuracies that counts, where the ranges of the seeds do not overlap."""


def main(quick: bool = False, table: Path | None = None, out: Path = OUT) -> list[str]:
    """Compare, publish, and return the answer in words. `quick` trains tiny runs, whose numbers mean nothing."""
    with TemporaryDirectory() as scratch:
        sweep = tiny_sweep("lora", Path(scratch), table) if quick else read_sweep_table(table or TABLE)
    runs = accuracies(sweep, tiny_grid("lora") if quick else read_grid(GRID))
    found = runs.groupby([*ARM, "rank", "lr", "steps"], as_index=False)["accuracy"].agg(["mean", "min", "max", "size"])
    found = found.rename(columns={"mean": "accuracy", "size": "seeds"})
    best = (
        found.sort_values("accuracy", ascending=False).drop_duplicates([*ARM, "steps"]).sort_values([*ARM[:3], "rank"])
    )
    single = best[(best["data"] == "one regime") & (best["steps"] == best["steps"].max())]
    single = single.assign(panel=single["frozen"] + " to s3 " + single["asked"])
    figure = lines(
        single, x="trained", y="accuracy", low="min", high="max", facet="panel", bounds=(0.0, 1.0),
        title="Held-out accuracy by what is trained; mean and range of seeds",
    )  # fmt: skip
    answer = [*by_rank(single), *one_or_two(best)]
    return publish(out, tables={"lora": found}, figures={"lora": figure}, answer=answer)


def accuracies(sweep: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """One row for each run that started from another: the arm that it is of, and its accuracy."""
    specs, rows = {spec.slug: spec for spec in grid.specs}, []
    held = sweep[(sweep["split"] == "heldout") & (sweep["reading"] == "answer") & (sweep["k"] > 0)]
    for slug, accuracy in held.groupby("slug")["accuracy"].mean().items():
        spec = specs.get(str(slug))
        if spec is None or spec.start_from is None:
            continue
        frozen, rank = specs[spec.start_from], 0 if spec.adapter is None else spec.adapter.rank
        arm = (f"{frozen.task_name} {frozen.regime}", spec.regime, "mixed" if spec.mix else "one regime")
        trained = f"rank {rank}" if rank else ALL
        rows.append((*arm, trained, rank or 10**6, spec.optimizer.lr, spec.optimizer.steps, spec.seed, accuracy))
    return pd.DataFrame(rows, columns=[*ARM, "rank", "lr", "steps", "run_seed", "accuracy"])


def by_rank(single: pd.DataFrame) -> Iterator[str]:
    """Accuracy of every rank beside that of full training, for each thing that was taught."""
    for panel, rows in single.groupby("panel"):
        cells = [f"{r.trained} {r.accuracy:.2f} [{r.min:.2f}-{r.max:.2f}]" for r in rows.itertuples(index=False)]
        full, most = rows[rows["trained"] == ALL].iloc[0], rows[rows["trained"] != ALL].iloc[-1]
        yield f"{panel}, {rows['seeds'].min()} seeds: {', '.join(cells)}: {most['trained']} {compared(most, full)} all"


def compared(one: pd.Series, other: pd.Series) -> str:
    """Whether the accuracies of one arm are less than, more than, or not told apart from another's."""
    gap = one["accuracy"] - other["accuracy"]
    apart = one["max"] < other["min"] if gap < 0 else one["min"] > other["max"]
    if abs(gap) <= GAIN or not apart:
        return "is not told apart from"
    return "is worse than" if gap < 0 else "is better than"


def one_or_two(best: pd.DataFrame) -> Iterator[str]:
    """One adapter on the mixture, asked in each regime, beside two of half the updates."""
    two = best[(best["data"] == "one regime") & (best["steps"] == best["steps"].min()) & (best["trained"] != ALL)]
    for _, one in best[(best["data"] == "mixed") & (best["trained"] != ALL)].iterrows():
        pair = two[(two["frozen"] == one["frozen"]) & (two["asked"] == one["asked"])].iloc[0]
        cells = f"one for both regimes {one['accuracy']:.2f}, two of {pair['trained']} {pair['accuracy']:.2f}"
        yield f"s3 {one['asked']}, {one['trained']}: {cells}: one {compared(one, pair)} two"


if __name__ == "__main__":
    script(main, __doc__)
