"""What forms first in training: the step's table, the read of the written total, or right answers?

Forner et al. 2026 (arXiv 2606.18164), of a solvable one-block tracker: first the MLP, then attention locks, then
accuracy jumps. Here an event is the update at which a measure durably passes halfway; an order agrees where the 95%
intervals of the share of seeds that have it so lie above one half, and differs where one lies below. Kinetics of
Reasoning (arXiv 2510.25791): accuracies are logistic in log updates, and early traces are not read: here the time from
steps durably written right to answers that durably follow an edited total.

    python -m analyses.training_dynamics [--quick] [--table FILE]
    python -m analyses.training_dynamics --train ROOT --task s3 --seeds 0 1 2 3 4 5 [--regimes cot] [--no-inside]
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from analyses.publishing import publish, stored
from cotinterp import ModelSpec, RunSpec
from cotinterp import train as trained
from cotinterp.cli.parsing import script
from cotinterp.figures.dynamics import dynamics_figure
from cotinterp.studies.dynamics import PRIMARY, training_dynamics
from cotinterp.studies.events import PUBLISHED, event_order
from cotinterp.studies.learning_curves import learning_curves, unread_window
from cotinterp.studies.subject import QUICK, Effort
from cotinterp.training.spec import OptimizerSpec

TABLE, OUT, KEYS = Path("analyses/out/training_dynamics.csv"), Path("out/training_dynamics"), ["task", "regime"]
STEPS, MOMENTS = {"cot": 1000, "direct": 4000}, 24
"""Updates by regime, at the end of which accuracy is flat; and how often they are looked at, from update 20 on."""
EFFORT = Effort(evaluated=200, edited=40, edits_per_step=1, probed=800, paired=64)


def main(
    quick: bool = False,
    table: Path | None = None,
    train: Path | None = None,
    task: str = "s3",
    regimes: tuple[str, ...] = ("cot", "direct"),
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
    inside: bool = True,
    out: Path = OUT,
) -> list[str]:
    """Follow runs, or read `table`, publish, and return the answer in words; `quick` trains tiny ones."""
    if quick:
        with TemporaryDirectory() as scratch:
            found = followed("z6", ("cot",), (0,), Path(scratch), inside=True, short=50)
    elif train is not None:
        found = followed(task, regimes, seeds, train, inside=inside)
    else:
        found = stored(table or TABLE, "python -m analyses.training_dynamics --train ROOT")
    tables, figures, answer = {"dynamics": found}, {}, []
    primary = found[found["condition"] == found["measure"].map(PRIMARY)]
    for (name, regime), runs in primary.groupby(KEYS, sort=False):
        figures[f"dynamics-{name}-{regime}"] = dynamics_figure(runs)
        if regime != "direct":
            answer += list(order_of(runs, tables, figures))
    if (primary.loc[primary["measure"] == "accuracy", "value"] > 0).any():
        curves = learning_curves(primary)
        tables["learning_curves"], figures["learning_curves"] = curves.over_runs(), curves.figure()
        answer += list(fitted(curves.over_runs()))
    return publish(out, tables=tables, figures=figures, answer=answer or [f"{found['task'].iloc[0]}: nothing learned"])


def followed(
    task: str, regimes: tuple[str, ...], seeds: tuple[int, ...], root: Path, *, inside: bool, short: int = 1
) -> pd.DataFrame:
    """The measures of every run, which is trained under `root` where it is missing; on a `short`th of everything."""
    shape, found = ModelSpec(n_layers=2, d_model=64, n_heads=4, d_mlp=256, n_ctx=64), []
    for regime, seed in ((regime, seed) for seed in seeds for regime in regimes):
        last, n = STEPS[regime] // short, max(MOMENTS // short, 3)
        kept = {0, *np.geomspace(min(20, last // 4), last - 1, n).astype(int).tolist()}
        fields = {"k_max": 5, "n_train": 20_000 // short, "seed": seed, "snapshots": tuple(sorted(kept))}
        spec = RunSpec(task=task, regime=regime, model=shape, optimizer=OptimizerSpec(steps=last), **fields)
        run = trained(spec, directory=root / spec.slug, device="cpu", threads=1)
        found.append(training_dynamics(run, EFFORT if short == 1 else QUICK, inside=inside).frame().round(4))
    return pd.concat(found, ignore_index=True)


def order_of(runs: pd.DataFrame, tables: dict[str, pd.DataFrame], figures: dict[str, object]) -> Iterator[str]:
    """When each measure rises, whether the published order holds, and whether traces are written before being read."""
    order, window, (task, regime) = event_order(runs), unread_window(runs), runs[KEYS].iloc[0]
    moments, of = order.moments(), f"{task}, {regime}"
    tables |= {f"events-{task}-{regime}": order.events, f"order-{task}-{regime}": order.frame()}
    if len(moments):
        figures[f"events-{task}-{regime}"] = order.figure()
    for one in moments.itertuples():
        yield f"{of}: {one.measure} halfway at {one.event:.0f} [{one.ci_low:.0f}, {one.ci_high:.0f}], {one.n} seeds"
    pairs = order.frame().set_index(["first", "then"])
    for one, other in pairs.index[pairs["share"].notna()]:
        if {one, other} <= set(PUBLISHED):
            at = pairs.loc[(one, other)]
            ratio = f"{at['ratio']:.2f} [{at['ratio_low']:.2f}, {at['ratio_high']:.2f}] times as late"
            share = f"{at['share']:.2f} [{at['ci_low']:.2f}, {at['ci_high']:.2f}] of seeds"
            yield f"{of}: {one} before {other} in {share}, {ratio}"
    yield f"{of}: {', then '.join(PUBLISHED)}, as published: {order.judged()}"
    ends = window.summary().iloc[0]
    cells = (f"{ends[end]:.0f} [{ends[f'{end}_low']:.0f}, {ends[f'{end}_high']:.0f}]" for end in ("start", "end"))
    yield f"{of}: steps right from {' on, edits followed from '.join(cells)}: written before read {window.judged()}"


def fitted(found: pd.DataFrame) -> Iterator[str]:
    """A line for each logistic."""
    for (task, regime), rows in found.groupby(KEYS, sort=False):
        cells = [f"{one.parameter} {one.value:.3g} [{one.ci_low:.3g}, {one.ci_high:.3g}]" for one in rows.itertuples()]
        yield f"{task}, {regime}: logistic in log updates, {', '.join(cells)} ({rows['n'].iloc[0]} seeds)"


if __name__ == "__main__":
    script(main, __doc__)
