"""Evidence made up for the tests: so many right of so many, at each seed."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from cotinterp.studies.evidence import COLUMNS, RUN_COLUMNS, Evidence, tally


def rows(
    measure,
    right,
    n,
    *,
    regime="cot",
    seed=0,
    k=4,
    step=-1,
    condition="heldout",
    task="toy",
    variant="",
    n_layers=4,
):
    """One cell: `right` of `n` problems."""
    values = np.repeat([1.0, 0.0], [right, n - right])
    labels = {"task": task, "regime": regime, "variant": variant, "n_layers": n_layers, "run_seed": seed}
    return tally(measure, values, k=k, step=step, condition=condition).assign(**labels)


def evidence(parts: Iterable[pd.DataFrame], runs: Iterable[Mapping[str, object]] = ()) -> Evidence:
    """Evidence of those rows, and of those runs; by default of all that have rows, each seed on problems of its own."""
    numbers = {"n_layers": 4, "run_seed": 0, "final_loss": 0.1, "train_accuracy": 1.0, "draw": 0, "core_seconds": 720.0}
    blank = dict.fromkeys(RUN_COLUMNS, "") | {"status": "finished"} | numbers
    table = pd.concat(list(parts), ignore_index=True)[list(COLUMNS)]
    named = table[["task", "regime", "variant", "run_seed"]].drop_duplicates()
    own = [{**run, "draw": run["run_seed"]} for run in named.to_dict("records")]
    listed = pd.DataFrame([blank | dict(run) for run in list(runs) or own], columns=list(RUN_COLUMNS))
    return Evidence(table, listed)


def accuracies(regime, by_seed, *, n=1000, **more):
    """Held-out accuracy of a regime: a share for each seed."""
    return [rows("accuracy", round(n * share), n, regime=regime, seed=s, **more) for s, share in enumerate(by_seed)]
