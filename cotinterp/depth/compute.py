"""Accuracy against compute: what each run of a sweep gets right, and what an answer and the learning of it cost."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.depth.cost import AnswerLengths, answer_lengths, cost_of, flops_of_training
from cotinterp.depth.frontier import LEAST_PROBLEMS
from cotinterp.figures.depth import compute_figure
from cotinterp.models.flops import Cost
from cotinterp.models.spec import ModelSpec
from cotinterp.results.result import Result
from cotinterp.sweeps.table import definitions_in, require_columns, require_one_definition
from cotinterp.tasks import Task, get_task
from cotinterp.tasks.definition import check_definition
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.vocabulary import Vocabulary

SHAPE = ("n_layers", "d_model", "n_heads", "d_mlp", "n_ctx")
CONFIGURATION = (
    *("task", "regime", *SHAPE, "architecture", "n_parameters", "steps", "batch_size", "lr", "n_train"),
    *("k_min", "k_max"),
)
"""What a configuration is; runs that differ in the seed alone are draws of one."""
PRICES = ("n_parameters", "response_tokens", "flops", "training_flops")
"""What accuracy is bought with: parameters, tokens of an answer, operations of an answer, operations of training."""
COMPUTE_COLUMNS = (
    *CONFIGURATION,
    *("start_from", "schedule", "run_seed", "slug", "status", "k", "n", "accuracy", "ci_low", "ci_high"),
    *("prompt_tokens", "response_tokens", "layer_operations", "flops", "training_flops"),
)
CHEAPEST_COLUMNS = (
    *("task", "k", "regime", "configurations", "good_enough", "best_accuracy"),
    *(*PRICES, "configuration"),
)
NEEDED = ("split", "reading", "step", "ended", *COMPUTE_COLUMNS[: COMPUTE_COLUMNS.index("prompt_tokens")])


@dataclass(frozen=True, eq=False)
class ComputeResult(Result):
    """One row for each run and number of operands: held-out, free-running accuracy, and the price of an answer.

    `flops` are matrix products of one right answer with a cache of keys, `training_flops` those of the whole training,
    both counted from shapes (`cotinterp.depth.cost`); `training_flops` leaves out what a run that this one started
    from had cost, and counts an update of a stage with short problems like any other. A run that is not right at this
    budget may be so at another: that a price was not enough here is no proof that it cannot be. Prices compare these
    configurations, not the best ones possible.
    """

    rows: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """The tidy table: COMPUTE_COLUMNS, sorted by task, regime, depth, steps, seed and k."""
        return self.rows.copy()

    def by_run(self, k: int | None = None) -> pd.DataFrame:
        """One row for each run: accuracy and prices at `k`, or their means over all measured lengths, each once.

        Lengths with fewer than LEAST_PROBLEMS problems are left out. KeyError where no run was measured at `k`.
        """
        rows = self.rows[self.rows["n"] >= LEAST_PROBLEMS]
        if k is not None:
            measured = sorted(rows["k"].unique().tolist())
            rows = rows[rows["k"] == k]
            if rows.empty:
                raise KeyError(f"no run was measured at K = {k} with {LEAST_PROBLEMS} problems; measured: {measured}")
        numbers = ["accuracy", "response_tokens", "flops", "training_flops"]
        keys = [*CONFIGURATION, "start_from", "schedule", "run_seed", "slug"]
        return rows.groupby(keys, sort=False)[numbers].mean().reset_index()

    def by_configuration(self, k: int | None = None) -> pd.DataFrame:
        """The same, mean over the runs (seeds) of each configuration, whose number is in `runs`."""
        keys = [*CONFIGURATION, "start_from", "schedule"]
        numbers = ["accuracy", "response_tokens", "flops", "training_flops"]
        grouped = self.by_run(k).groupby(keys, sort=False)
        return grouped[numbers].mean().assign(runs=grouped.size()).reset_index()

    def cheapest(self, accuracy: float = 0.9) -> pd.DataFrame:
        """For each task, length and regime the least that bought `accuracy`, mean over seeds, among what was measured.

        Each price is the least of its own kind, so prices of one row may be of different configurations; the one named
        answers with the fewest operations, and of those learned with the fewest. Missing where none was good enough:
        `best_accuracy` then says how near the best came. Columns: task, k, regime, configurations, good_enough,
        best_accuracy, the four PRICES, configuration. No rows where no length has LEAST_PROBLEMS problems.

        Raises:
            ValueError: `accuracy` is no share.
        """
        if not 0 < accuracy <= 1:
            raise ValueError(f"accuracy is a share above 0 and at most 1, got {accuracy}")
        counted = self.rows.loc[self.rows["n"] >= LEAST_PROBLEMS, "k"]
        found = []
        for k in sorted(counted.unique().tolist()):
            for (task, regime), rows in self.by_configuration(k).groupby(["task", "regime"], sort=False):
                found.append({"task": task, "k": k, "regime": regime, **_least(rows, accuracy)})
        if not found:
            return pd.DataFrame(columns=list(CHEAPEST_COLUMNS))
        return pd.DataFrame(found).sort_values(["task", "k", "regime"], ignore_index=True)

    def figure(self, k: int | None = None) -> go.Figure:
        """Accuracy against FLOPs per answer, tokens per answer and training FLOPs (`cotinterp.figures.depth`).

        KeyError where nothing was measured at `k`.
        """
        return compute_figure(self.by_run(k), self.by_configuration(k), k)


def accuracy_against_compute(table: pd.DataFrame, *, tasks: Mapping[str, Task] | None = None) -> ComputeResult:
    """Joins a sweep's tidy table with the cost of answering and of training.

    Only held-out answers that a model writes are taken (`reading` "answer", and no labels). Runs without an evaluation
    have no row.

    Args:
        table: SWEEP_COLUMNS, of which NEEDED are read.
        tasks: Tasks by the name that the table gives them; for those that the registry does not know.

    Raises:
        KeyError: A column is missing, or a task is not known. ValueError: No run was evaluated, or a task is not the
            one that the table is of.
    """
    require_columns(table, NEEDED)
    require_one_definition(table)
    written = table["regime"].map(lambda name: get_regime(str(name)).reads == "response")
    chosen = table[written & (table["split"] == "heldout") & (table["reading"] == "answer") & (table["n"] > 0)]
    if chosen.empty:
        raise ValueError("no run in the table was evaluated on held-out problems: run the sweep, then collect it")
    texts = ("start_from", "schedule", "architecture", "ended")
    chosen = chosen.assign(**{name: chosen[name].astype(object).where(chosen[name].notna(), "") for name in texts})
    known = {name: (tasks or {}).get(name) or get_task(name) for name in chosen["task"].unique()}
    for name, one in known.items():
        check_definition(one, definitions_in(table, name), "the sweep table")
    memo: dict[tuple[str, str, int], AnswerLengths] = {}

    def lengths(task: str, regime: str, k: int) -> AnswerLengths:
        key = (task, regime, k)
        if key not in memo:
            memo[key] = answer_lengths(known[task], regime, k)
        return memo[key]

    parts = []
    for (task, regime, _), rows in chosen.groupby(["task", "regime", "slug"], sort=False):
        first = rows.iloc[0].to_dict()
        model, d_vocab = shape_of(first), len(Vocabulary.of(known[str(task)]))
        trained_on = [lengths(str(task), str(regime), k) for k in range(int(first["k_min"]), int(first["k_max"]) + 1)]
        training = flops_of_training(
            Cost(model, d_vocab),
            trained_on,
            int(first["batch_size"]) * int(first["step"] if first["ended"] else first["steps"]),
            tagged=get_regime(str(regime)).tags_operands,
        )
        costs = [cost_of(lengths(str(task), str(regime), int(k)), model, d_vocab) for k in rows["k"]]
        added = {name: [getattr(one, name) for one in costs] for name in PRICES[1:3]}
        added |= {name: [getattr(one, name) for one in costs] for name in ("prompt_tokens", "layer_operations")}
        parts.append(rows.assign(**added, training_flops=training))
    joined = pd.concat(parts, ignore_index=True)[list(COMPUTE_COLUMNS)]
    order = ["task", "regime", "n_layers", "d_model", "steps", "run_seed", "slug", "k"]
    return ComputeResult(joined.sort_values(order, kind="stable", ignore_index=True))


def shape_of(row: Mapping[Hashable, Any]) -> ModelSpec:
    """The shape that a row of the sweep table tells. Norms and positions are not in it; they cost no products."""
    return ModelSpec.model_validate({name: int(row[name]) for name in SHAPE})


def _least(rows: pd.DataFrame, accuracy: float) -> dict[str, object]:
    good = rows[rows["accuracy"] >= accuracy]
    found: dict[str, object] = {
        "configurations": len(rows),
        "good_enough": len(good),
        "best_accuracy": float(rows["accuracy"].max()),
        **{price: float(good[price].min()) if len(good) else np.nan for price in PRICES},
    }
    if good.empty:
        return {**found, "configuration": ""}
    first = good.sort_values(["flops", "training_flops"], kind="stable").iloc[0]
    return {**found, "configuration": f"L{first['n_layers']}, d_model {first['d_model']}, {first['steps']} updates"}
