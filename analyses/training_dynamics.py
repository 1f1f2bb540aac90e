"""What forms first in training: the step's table, the read of the written total, or right answers?

Published of a one-block tracker (arXiv 2606.18164): MLP, then attention, then accuracy. An event is the update at which
a measure durably passes halfway; the order agrees where 95% intervals of the share of seeds lie above one half. Also
(arXiv 2510.25791): accuracies are logistic in log updates, and steps are right before answers follow edited totals.

    python -m analyses.training_dynamics [--quick] [--table FILE]
    python -m analyses.training_dynamics --train ROOT --task s3 --seeds 0 1 2 3 4 5 [--regimes cot] [--no-inside]
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analyses.publishing import publish, stored
from cotinterp import ModelSpec, RunSpec, get_task
from cotinterp import train as trained
from cotinterp.cli.parsing import script
from cotinterp.figures.dynamics import dynamics_figure
from cotinterp.studies.dynamics import PRIMARY, training_dynamics
from cotinterp.studies.events import PUBLISHED, event_order
from cotinterp.studies.learning_curves import learning_curves, unread_window
from cotinterp.studies.subject import QUICK, Effort
from cotinterp.training.spec import OptimizerSpec

TABLE, OUT, KEYS = Path("analyses/out/training_dynamics.csv"), Path("out/training_dynamics"), ["task", "regime"]
STEPS, MOMENTS = {"cot": 1000, "direct": 4000}, 24  # updates, and moments from update 20 on
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
    with TemporaryDirectory() as scratch:
        if quick or train is not None:
            asked = [("z6", "cot", 0)] if quick else [(task, one, seed) for seed in seeds for one in regimes]
            found = followed(asked, train or Path(scratch), inside, 50 if quick else 1)
        else:
            found = stored(table or TABLE, "python -m analyses.training_dynamics --train ROOT")
    tables, figures, answer = {"dynamics": found}, dict[str, go.Figure](), list[str]()
    primary = found[found["condition"] == found["measure"].map(PRIMARY)]
    for (name, regime), runs in primary.groupby(KEYS, sort=False):
        figures[f"dynamics-{name}-{regime}"] = dynamics_figure(runs)
        answer += list(order_of(runs, tables, figures)) if regime != "direct" else []
    right = primary.groupby("task").filter(lambda rows: rows.query("measure == 'accuracy'")["value"].any())
    for name in sorted(set(map(str, right["task"]))):
        for floor in (0.0, 1 / get_task(name).n_states):
            curves = learning_curves(right[right["task"] == name], floor=floor)
            at, of = f"curves-{name}-from-{floor:.2f}", curves.over_runs()
            tables[at], figures[at] = of, curves.figure()
            answer += [f"{at}: {r}, {p} {x:.3g} [{low:.3g}, {up:.3g}]" for _, r, p, _, x, low, up in of.to_numpy()]
    return publish(out, tables=tables, figures=figures, answer=answer or [f"{found['task'].iloc[0]}: nothing learned"])


def followed(runs: Iterable[tuple[str, str, int]], root: Path, inside: bool, short: int) -> pd.DataFrame:
    """The measures of every run, trained under `root` where it is missing; on a `short`th of everything."""
    shape, found = ModelSpec(n_layers=2, d_model=64, n_heads=4, d_mlp=256, n_ctx=64), []
    for task, regime, seed in runs:
        last, n = STEPS[regime] // short, max(MOMENTS // short, 3)
        kept = {0, *np.geomspace(min(20, last // 4), last - 1, n).astype(int).tolist()}
        fields: dict[str, Any] = {"n_train": 20_000 // short, "seed": seed, "snapshots": tuple(sorted(kept))}
        spec = RunSpec(task=task, regime=regime, k_max=5, model=shape, optimizer=OptimizerSpec(steps=last), **fields)
        run = trained(spec, directory=root / spec.slug, device="cpu", threads=1)
        found.append(training_dynamics(run, EFFORT if short == 1 else QUICK, inside=inside).frame().round(4))
    return pd.concat(found, ignore_index=True)


def order_of(runs: pd.DataFrame, tables: dict[str, pd.DataFrame], figures: dict[str, go.Figure]) -> Iterator[str]:
    """When each measure rises, whether the published order holds, and whether traces are written before being read."""
    order, (task, regime) = event_order(runs), runs[KEYS].iloc[0]
    of, ends = f"{task}, {regime}", unread_window(runs)
    tables[f"order-{task}-{regime}"] = order.frame()
    for one in order.moments().itertuples():
        figures[f"events-{task}-{regime}"] = order.figure()
        yield f"{of}: {one.measure} halfway at {one.event:.0f} [{one.ci_low:.0f}, {one.ci_high:.0f}], {one.n} seeds"
    for one in order.frame().query("first in @PUBLISHED and then in @PUBLISHED").dropna().itertuples():
        share = f"{one.share:.2f} [{one.ci_low:.2f}, {one.ci_high:.2f}] of seeds"
        ratio = f"{one.ratio:.2f} [{one.ratio_low:.2f}, {one.ratio_high:.2f}] times as late"
        yield f"{of}: {one.first} before {one.then} in {share}, {ratio}"
    yield f"{of}: {', then '.join(PUBLISHED)}, as published: {order.judged()}"
    at = ends.summary().iloc[0]
    ratio = f"{at['log_ratio']:+.2f} [{at['log_ratio_low']:+.2f}, {at['log_ratio_high']:+.2f}] in log updates"
    yield f"{of}: steps right from {at['start']:.0f} on, edits followed from {at['end']:.0f}, {ratio}: {ends.judged()}"


if __name__ == "__main__":
    script(main, __doc__)
