"""What a cot run is compared with: models that write nothing, or nothing of use, and had as much of one thing.

Written tokens cost operations, so "cot solves longer problems" may mean "more compute solves longer problems". Each cot
run stands here beside the runs of the same task and seed, trained for at least as many updates, that had as many
operations an answer (a deeper or wider direct model), as many tokens (filler of the same shape), or as many parameters
(direct). A match is in one quantity, counted from shapes; equal counts need not be equally easy to learn with.
"""

from collections.abc import Callable, Iterator
from functools import cache

import pandas as pd

from cotinterp.models.spec import ModelSpec
from cotinterp.sweeps.cost import answer_cost
from cotinterp.sweeps.frontier import MEASURED, frontier
from cotinterp.tasks import Task

WITHIN = 1.25
"""Factor up to which two counts are equal."""
SHAPE = ("n_layers", "d_model", "n_heads", "d_mlp", "n_ctx")
TOLD = ("n_layers", "d_model", "steps", "slug", "frontier", "k_top", "standing")
CONTROL_COLUMNS = ("task", "seed", *TOLD, "match", "ratio", "control_regime", *(f"control_{name}" for name in TOLD))


def controls(table: pd.DataFrame, task: str | Task, within: float = WITHIN) -> pd.DataFrame:
    """One row for each pair of a cot run and a control: CONTROL_COLUMNS.

    `match` is `equal operations`, `equal tokens` or `equal parameters`; `ratio` is the control's count divided by that
    of the cot run. Operations are those of one answer to the longest problem that the cot run was measured on, with a
    cache of keys (`answer_cost`). Both frontiers are given with their standing: that of an unconverged run is a lower
    bound, and so is no evidence that the control cannot. Empty where nothing matches.

    Args:
        task: Its name, or the task itself where its name alone does not find it.
        within: Factor, 1 or more, up to which operations and parameters are equal.

    Raises:
        KeyError: The table has no such task, or a column is missing. ValueError: `within` is less than 1.
    """
    if within < 1:
        raise ValueError(f"within is a factor of 1 or more, got {within}")
    runs = frontier(table).frame()
    runs = runs[(runs["reading"] == "answer") & runs["standing"].isin(MEASURED)]
    name = task if isinstance(task, str) else task.name
    of_task = runs[runs["task"] == name]
    if of_task.empty:
        raise KeyError(f"the table has no measured runs of task {name!r}; it has {sorted(runs['task'].unique())}")

    @cache
    def flops(regime: str, shape: ModelSpec, k: int) -> float:
        return answer_cost(task, regime, shape, k, n=50).flops

    def spent(run: pd.Series, k: int) -> float:
        return flops(str(run["regime"]), ModelSpec.model_validate({name: int(run[name]) for name in SHAPE}), k)

    cots = (cot for _, cot in of_task[of_task["regime"] == "cot"].iterrows())
    pairs = [pair for cot in cots for pair in _pairs(cot, of_task, within, spent)]
    return pd.DataFrame(pairs, columns=list(CONTROL_COLUMNS))


def _pairs(
    cot: pd.Series, runs: pd.DataFrame, within: float, spent: Callable[[pd.Series, int], float]
) -> Iterator[dict[str, object]]:
    rivals = runs[(runs["seed"] == cot["seed"]) & (runs["steps"] >= cot["steps"])]
    for _, rival in rivals[rivals["regime"].isin(("direct", "filler"))].iterrows():
        for match, ratio in _matches(cot, rival, within, spent):
            told = {name: cot[name] for name in ("task", "seed", *TOLD)} | {"match": match, "ratio": ratio}
            yield told | {f"control_{name}": rival[name] for name in ("regime", *TOLD)}


def _matches(
    cot: pd.Series, rival: pd.Series, within: float, spent: Callable[[pd.Series, int], float]
) -> Iterator[tuple[str, float]]:
    same_shape = bool((cot[list(SHAPE)] == rival[list(SHAPE)]).all())
    if rival["regime"] == "filler":
        if same_shape:
            yield "equal tokens", 1.0
        return
    longest = int(cot["k_top"])
    counts = {
        "equal operations": (spent(cot, longest), spent(rival, longest)),
        "equal parameters": (float(cot["n_parameters"]), float(rival["n_parameters"])),
    }
    for match, (wanted, had) in counts.items():
        if 1 / within <= had / wanted <= within:
            yield match, had / wanted
