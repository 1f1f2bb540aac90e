"""The depth frontier: how long a problem each run of a sweep solves, and whether more training could have moved it."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.depth import frontier_figure
from cotinterp.results.result import Result
from cotinterp.sweeps.table import require_columns, require_one_definition

SOLVED = 0.9
"""Held-out accuracy from which a length counts as solved (Merrill, Petty & Sabharwal 2024, arXiv 2404.08819)."""
LEAST_PROBLEMS = 30
"""Problems of one length below which it is not measured: 27 of 30 has a 95% interval of 25 points."""
STALLED = 0.05
"""Relative fall of the training loss over the second half of a run below which it counts as standing still: twice what
batches of 64 make two means of twenty logged losses differ by."""

RECIPE = (
    *("d_model", "n_heads", "d_mlp", "n_ctx", "batch_size", "lr", "n_train", "k_min", "k_max"),
    *("start_from", "schedule", "architecture"),
)
"""What else decides a run: only runs that agree in all of it are points of one frontier over depth."""
RUN = ("slug", "task", "regime", "run_seed", "n_layers", "steps", "n_parameters", *RECIPE)
NEEDED = (*RUN, "status", "ended", "loss_mid", "loss_end", "split", "reading", "k", "n", "accuracy")
"""Columns of the sweep table that the frontier is made from."""

TEXTS = ("start_from", "schedule", "architecture", "ended", "reading", "split")

CONVERGED = ("complete", "settled", "fitted")
UNCONVERGED = ("budget", "stalled", "improving")
CONVERGENCE = (*CONVERGED, *UNCONVERGED, "unmeasured", "unfinished", "failed", "absent")
MEASURED = (*CONVERGED, *UNCONVERGED)

FRONTIER_COLUMNS = (
    *("task", "regime", "reading", "n_layers", "d_model", "steps", "run_seed", "slug", "frontier", "next_k", "k_low"),
    *("k_top", "convergence", "lengths", "solved", "longest", "next_accuracy", "next_train_accuracy"),
    *("least_train_accuracy", "n_parameters"),
    *(name for name in RECIPE if name != "d_model"),
)


@dataclass(frozen=True, eq=False)
class FrontierResult(Result):
    """One row for each run and reading; `depth_frontier` makes it.

    `frontier` is the largest measured length K such that it and all shorter measured ones are solved, 0 where not even
    the shortest is; `next_k` the first measured length that is not solved, -1 where there is none. `k_low` and `k_top`
    are the shortest and the longest measured length, `lengths` their number, `solved` how many the frontier covers;
    `longest` is the longest solved length, beyond the frontier where accuracy is not monotone in K;
    `least_train_accuracy` the least accuracy on training problems of length `next_k` and more. What lies between
    `frontier` and `next_k` was not measured.

    `convergence` is one of:

    - `complete`: solves every measured length.
    - `settled`: it was trained until it had converged, and had, or nothing moved any more (`training.course`).
    - `budget`: it was to be trained until it had converged, and its updates were used up before.
    - `fitted`: of a fixed number of updates, right on its own training problems of length `next_k`, and either on all
      longer ones too or with a loss that stands still, so more updates can teach it little.
    - `stalled`: neither, and its loss fell by less than STALLED over the second half of training.
    - `improving`: neither, and its loss fell by more.
    - `unmeasured` (finished, but no length has enough problems), `unfinished`, `failed`, `absent`: nothing is known of
      the frontier; theirs is 0 with `k_top` -1.

    Only `complete`, `settled` and `fitted` are converged: the frontier of the others is a lower bound.
    `stalled` does not mean unsolvable, for a loss may stand still for long before it falls; and knowing the few short
    training problems by heart is not convergence, for what is still being learned on longer ones may carry over.
    """

    runs: pd.DataFrame
    solved: float = SOLVED
    least_problems: int = LEAST_PROBLEMS

    def frame(self) -> pd.DataFrame:
        """The tidy table: FRONTIER_COLUMNS, sorted by task, regime, reading, depth, steps and seed."""
        return self.runs.copy()

    def counts(self) -> pd.DataFrame:
        """Runs of each task, regime, reading and steps by convergence, and how many are not monotone in K."""
        keys = ["task", "regime", "reading", "steps"]
        counted = pd.crosstab([self.runs[key] for key in keys], self.runs["convergence"])
        counted = counted.reindex(columns=list(CONVERGENCE), fill_value=0)
        odd = (self.runs["longest"] > self.runs["frontier"]).groupby([self.runs[key] for key in keys]).sum()
        return counted.assign(not_monotone=odd).reset_index().rename_axis(columns=None)

    def figure(self) -> go.Figure:
        """Frontier against depth, a panel for each task, regime and budget (`cotinterp.figures.depth`)."""
        return frontier_figure(self.runs)


def depth_frontier(table: pd.DataFrame, solved: float = SOLVED, least_problems: int = LEAST_PROBLEMS) -> FrontierResult:
    """The frontier of every run in a sweep's tidy table, however its rows are ordered.

    A length with fewer than `least_problems` held-out problems counts as not measured. A frontier is a property of this
    trained model on held-out problems of the lengths that it was trained on; it says nothing about longer ones.

    Args:
        table: SWEEP_COLUMNS, of which NEEDED are read; a run without an evaluation has one row with k = -1.
        solved: Held-out accuracy from which a length is solved, and training accuracy from which it is fitted.

    Raises:
        KeyError: A column is missing.
        ValueError: No rows, `solved` outside (0, 1], a length that is measured twice for one run, or two different
            tasks of one name (`definition`).
    """
    table = _checked(table, solved)
    rows = []
    for (slug, reading), lines in table.groupby(["slug", "reading"], sort=True):
        rows.append(_run(str(slug), str(reading), lines, solved, least_problems))
    found = pd.DataFrame(rows)[list(FRONTIER_COLUMNS)]
    keys = ["task", "regime", "reading", "n_layers", "steps", "run_seed", "slug"]
    return FrontierResult(found.sort_values(keys, ignore_index=True), solved, least_problems)


def _checked(table: pd.DataFrame, solved: float) -> pd.DataFrame:
    require_columns(table, NEEDED)
    if table.empty:
        raise ValueError("the sweep table has no rows: collect a sweep with at least one run")
    if not 0 < solved <= 1:
        raise ValueError(f"solved is an accuracy in (0, 1], got {solved}; {SOLVED} is the literature's criterion")
    # An empty text of a CSV file is read as a missing value.
    texts = {name: table[name].astype(object).where(table[name].notna(), "") for name in TEXTS}
    table = table.assign(**texts, k=table["k"].fillna(-1).astype(int))
    table.loc[table["reading"] == "", "reading"] = "answer"
    twice = table[(table["k"] >= 0) & table.duplicated(["slug", "reading", "split", "k"], keep=False)]
    if len(twice):
        one = twice.iloc[0]
        raise ValueError(f"run {one['slug']!r} has K = {one['k']} ({one['split']}) more than once: collect it once")
    require_one_definition(table)
    return table


def _run(slug: str, reading: str, rows: pd.DataFrame, solved: float, least: int) -> dict[Hashable, object]:
    first = rows.iloc[0]
    counted = rows[(rows["k"] >= 0) & (rows["n"] >= least) & rows["accuracy"].notna()]
    held, trained = (
        counted[counted["split"] == split].set_index("k")["accuracy"].sort_index() for split in ("heldout", "train")
    )
    lengths = held.index.to_numpy(dtype=int)
    right = held.to_numpy(dtype=float) >= solved
    n_solved = int(np.argmin(right)) if not right.all() else len(right)
    next_k = int(lengths[n_solved]) if n_solved < len(lengths) else -1
    beyond = trained[trained.index >= next_k]
    known = bool(len(beyond)) and next_k in beyond.index and float(beyond.min()) >= solved
    found: dict[Hashable, object] = {
        **{name: first[name] for name in RUN},
        "slug": slug,
        "reading": reading,
        "frontier": int(lengths[n_solved - 1]) if n_solved else 0,
        "next_k": next_k,
        "k_low": int(lengths[0]) if len(lengths) else -1,
        "k_top": int(lengths[-1]) if len(lengths) else -1,
        "lengths": len(lengths),
        "solved": n_solved,
        "longest": int(lengths[right].max()) if right.any() else 0,
        "next_accuracy": float(held.get(next_k, np.nan)),
        "next_train_accuracy": float(trained.get(next_k, np.nan)),
        "least_train_accuracy": float(beyond.min()) if next_k >= 0 else np.nan,
    }
    fell = 1 - float(first["loss_end"]) / float(first["loss_mid"]) if first["loss_mid"] else np.nan
    fitted = known or (float(trained.get(next_k, np.nan)) >= solved and fell < STALLED)
    status, ended = str(first["status"]), str(first["ended"])
    return found | {"convergence": _convergence(status, ended, len(lengths), next_k, fitted, fell)}


def _convergence(status: str, ended: str, lengths: int, next_k: int, fitted: bool, fell: float) -> str:
    """Where the loss was not logged the run counts as improving: nothing shows that it stood still."""
    if status != "finished":
        return status if status in CONVERGENCE else "failed"
    if not lengths:
        return "unmeasured"
    if next_k < 0:
        return "complete"
    if ended:
        return "budget" if ended == "budget" else "settled"
    if fitted:
        return "fitted"
    return "stalled" if fell < STALLED else "improving"


def one_recipe(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs of the recipe that covers most depths, then most runs, then comes first; and all others.

    Depth is the only thing that may differ along a frontier: a wider model is a control, not a point. The number of
    updates is no part of the recipe.
    """
    number = runs.groupby(list(RECIPE), dropna=False, sort=True).ngroup()
    sizes = runs.groupby(number).agg(depths=("n_layers", "nunique"), n=("slug", "size"))
    best = sizes.sort_values(["depths", "n"], ascending=False, kind="stable").index[0]
    return runs[number == best], runs[number != best]


LEAST_TRIES = 3
"""Converged runs of a depth from which on a length that none of them solves counts as beyond it."""
TAUGHT_ON_THE_WAY = {"tagging": "direct"}
"""Regimes of which a free-running answer is that of another one: the same response, with more targets in training."""
EXPRESSED_COLUMNS = (
    *(
        "task",
        "regime",
        "reading",
        "n_layers",
        "best",
        "next_k",
        "k_top",
        "proof",
        "ways",
        "runs",
        "converged",
        "tried",
    ),
)


def as_answered(frontier: pd.DataFrame) -> pd.DataFrame:
    """The regime by which a run answers; the one that it was trained in moves to `taught`.

    Answers that a model gives alone are `direct` whether or not the states at its operands were targets, too.
    """
    answers = frontier["reading"] == "answer"
    regime = frontier["regime"].where(~answers, frontier["regime"].replace(TAUGHT_ON_THE_WAY))
    return frontier.assign(taught=frontier["regime"], regime=regime)


def expressed(frontier: pd.DataFrame) -> pd.DataFrame:
    """What each depth can express: the longest K that any of its runs solves, by whatever way it was trained.

    That a depth can express a length is shown by one trained model that solves it, the `proof`; a deeper model can do
    the same, with further layers that add nothing. A run that fails while another solves says nothing about depth. That
    a depth cannot is never shown by training: `tried` says that LEAST_TRIES runs of this depth had converged without
    solving more. Widths are not told apart; give the runs of one.

    Args:
        frontier: Rows of `FrontierResult.frame()`, of all recipes.

    Returns:
        One row for each task, regime (`as_answered`), reading and depth: EXPRESSED_COLUMNS. `best` is the greatest
        `frontier` of runs of at most this depth, 0 where no run solves any length, `next_k` the first length beyond it
        that was measured (-1: none), `proof` the slug of the run, `ways` the recipes tried at this depth, `runs` those
        that were measured and `converged` how many of these had.
    """
    measured = as_answered(frontier[frontier["convergence"].isin(MEASURED)])
    rows = []
    for key, runs in measured.groupby(["task", "regime", "reading", "n_layers"], sort=True):
        labels = dict(zip(("task", "regime", "reading"), key, strict=False))
        among = measured[(measured[list(labels)] == pd.Series(labels)).all(axis=1) & (measured["n_layers"] <= key[-1])]
        best = among.sort_values(["frontier", "n_layers", "slug"], ascending=[False, True, True]).iloc[0]
        converged = int(runs["convergence"].isin(CONVERGED).sum())
        proof = best["slug"] if best["frontier"] > 0 else ""
        ways = runs.groupby(["taught", "schedule", "start_from", "architecture", "n_train", "lr"], dropna=False).ngroups
        reach = (int(best["frontier"]), int(best["next_k"]), int(best["k_top"]), proof)
        rows.append((*key, *reach, ways, len(runs), converged, converged >= LEAST_TRIES))
    return pd.DataFrame(rows, columns=list(EXPRESSED_COLUMNS))
