"""Grids that ask how the longest solved problem grows with depth, with the controls beside them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd

from cotinterp.depth.cost import answer_cost, equal_flops
from cotinterp.depth.frontier import LEAST_PROBLEMS, MEASURED, depth_frontier
from cotinterp.models.spec import ModelSpec
from cotinterp.sweeps.grid import Grid
from cotinterp.sweeps.table import definitions_in
from cotinterp.tasks import Task, get_task
from cotinterp.tasks.definition import check_definition
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.transcripts.problems import count_problems
from cotinterp.transcripts.render import longest_transcript

REGIMES = ("direct", "cot", "filler")
WITHIN = 1.25
"""Factor up to which two counts are equal."""
SHAPE = ("n_layers", "d_model", "n_heads", "d_mlp", "n_ctx")
COMPARED = ("n_layers", "d_model", "steps", "slug", "frontier", "k_top", "convergence")
CONTROL_COLUMNS = (
    *("task", "run_seed", *COMPARED, "match", "ratio", "control_regime"),
    *(f"control_{name}" for name in COMPARED),
)


@dataclass(frozen=True, kw_only=True)
class DepthDesign:
    """How the depth hypothesis is tested on a task; the defaults are those of the committed tables.

    Attributes:
        k_max: Longest problems.
        n_layers: Depths of the direct models; cot gets the first, the second and the last.
        seeds: Trained models of each kind.
        steps: Training budgets of the direct models. Two at least, or nothing is said about what more training would
            change; cot and filler get the shortest.
        d_model: Width; the MLPs are four times as wide.
        n_train: Training problems; many, so that memory is no way out.
        controls: Whether filler and the direct models that are as dear as cot are trained too.
        problems_per_k: Most problems of a length that each run is evaluated on.
    """

    k_max: int = 12
    n_layers: tuple[int, ...] = (1, 2, 3, 4)
    seeds: int = 3
    steps: tuple[int, ...] = (1000, 4000)
    d_model: int = 64
    n_train: int = 100_000
    controls: bool = True
    problems_per_k: int = 300


QUICK = DepthDesign(
    k_max=3,
    n_layers=(1, 2),
    seeds=1,
    steps=(20,),
    d_model=16,
    n_train=200,
    problems_per_k=LEAST_PROBLEMS,
    controls=False,
)
"""A look, not a measurement: whether everything goes through."""


def measurable_lengths(task: Task, k_max: int) -> tuple[int, ...]:
    """The lengths up to `k_max` that have LEAST_PROBLEMS held-out problems: on fewer no length counts as measured."""
    lengths = range(task.min_k, k_max + 1)
    return tuple(k for k in lengths if count_problems(task, k, "heldout", at_most=LEAST_PROBLEMS) >= LEAST_PROBLEMS)


def quick_design(task: Task) -> DepthDesign:
    """`QUICK`, as long as the shortest length of the task that can be measured."""
    lengths = range(max(QUICK.k_max, task.min_k), task.max_k + 1)
    return replace(QUICK, k_max=next((k for k in lengths if measurable_lengths(task, k)), task.max_k))


def depth_grid(task: str, design: DepthDesign = DepthDesign()) -> Grid:
    """The grid of a task, by name or as `path/to/file.py:ClassName`, seed by seed.

    All models have the context that the longest transcript of any of the regimes takes. The controls of each seed are,
    for cot at the least depth: filler of the same shape (as many tokens), and direct models whose answer to `k_max`
    operands takes as many operations, one deeper and one wider (`equal_flops`), at the longest budget.

    Raises:
        ValueError: No depths, budgets or seeds, lengths that the task does not have, or too few problems for any length
            to count as measured.
    """
    if not design.n_layers or not design.steps or design.seeds < 1:
        raise ValueError(
            "a depth grid needs one depth, one training budget and one seed at least; three of each tell more"
        )
    known = get_task(task)
    if design.problems_per_k < LEAST_PROBLEMS:
        raise ValueError(
            f"problems_per_k {design.problems_per_k} is too few: a length counts as measured from {LEAST_PROBLEMS} "
            "held-out problems on"
        )
    if not measurable_lengths(known, min(design.k_max, known.max_k)):
        enough = measurable_lengths(known, known.max_k)
        raise ValueError(
            f"no length up to k_max {design.k_max} of task {known.name!r} has {LEAST_PROBLEMS} held-out problems, from "
            "which on a length counts as measured: "
            + (f"raise k_max to {enough[0]}" if enough else f"its longest, {known.max_k}, has too few; raise its max_k")
        )
    base = RunSpec(
        task=task,
        regime="direct",
        k_min=known.min_k,
        k_max=design.k_max,
        n_train=design.n_train,
        precision="bf16",
        model=ModelSpec(
            d_model=design.d_model,
            d_mlp=4 * design.d_model,
            n_ctx=max(longest_transcript(known, design.k_max, regime) for regime in REGIMES),
        ),
    )
    specs = [spec for seed in range(design.seeds) for spec in _of_seed(base, design, seed)]
    return Grid(f"serial-depth-{known.name}", tuple(specs), design.problems_per_k)


def _of_seed(base: RunSpec, design: DepthDesign, seed: int) -> Iterator[RunSpec]:
    def spec(regime: str, model: ModelSpec, steps: int) -> RunSpec:
        optimizer = OptimizerSpec(steps=steps)
        return base.model_copy(update={"regime": regime, "seed": seed, "model": model, "optimizer": optimizer})

    depths = sorted(set(design.n_layers))
    models = {depth: base.model.model_copy(update={"n_layers": depth}) for depth in depths}
    yield from (spec("direct", models[depth], steps) for depth in depths for steps in design.steps)
    yield from (spec("cot", models[depth], min(design.steps)) for depth in dict.fromkeys((*depths[:2], depths[-1])))
    if design.controls:
        least = models[depths[0]]
        yield spec("filler", least, min(design.steps))
        yield spec("direct", equal_flops(least, base.task, base.k_max, by="depth"), max(design.steps))
        yield spec("direct", equal_flops(least, base.task, base.k_max, by="width"), max(design.steps))


def matched_controls(table: pd.DataFrame, task: str | Task, within: float = WITHIN) -> pd.DataFrame:
    """One row for each pair of a cot run and a control: CONTROL_COLUMNS.

    Written tokens cost operations, so "cot solves longer problems" may mean "more compute solves longer problems". Each
    cot run is paired with the runs of the same task and seed, trained for at least as many updates, that had as many
    operations an answer (a deeper or wider direct model), as many tokens (filler of the same shape), or as many
    parameters (direct). A match is in one counted quantity alone; the runs may differ in the others.

    `match` is `equal operations`, `equal tokens` or `equal parameters`; `ratio` is the control's count divided by that
    of the cot run. Operations are those of one answer to the longest problem that the cot run was measured on, with a
    cache of keys (`answer_cost`). `convergence` stands beside both frontiers: that of an unconverged run is a lower
    bound, and so is no evidence that the control cannot. Empty where nothing matches.

    Args:
        task: Its name, or the task itself where its name alone does not find it.
        within: Factor, 1 or more, up to which operations and parameters are equal.

    Raises:
        KeyError: The table has no such task, or a column is missing. ValueError: `within` is less than 1, or the task
            is not the one that the table is of.
    """
    if within < 1:
        raise ValueError(f"within is a factor of 1 or more, got {within}")
    runs = depth_frontier(table).frame()
    runs = runs[(runs["reading"] == "answer") & runs["convergence"].isin(MEASURED)]
    name = task if isinstance(task, str) else task.name
    of_task = runs[runs["task"] == name]
    if of_task.empty:
        raise KeyError(
            f"the table has no measured runs of task {name!r}; it has {sorted(runs['task'].unique())}. A run is "
            f"measured once it is trained and evaluated on {LEAST_PROBLEMS} held-out problems of one length"
        )
    known = get_task(task)
    check_definition(known, definitions_in(table, name), "the sweep table")

    @cache
    def flops(regime: str, shape: ModelSpec, k: int) -> float:
        return answer_cost(known, regime, shape, k, n=50).flops

    def spent(run: pd.Series, k: int) -> float:
        return flops(str(run["regime"]), ModelSpec.model_validate({name: int(run[name]) for name in SHAPE}), k)

    cots = (cot for _, cot in of_task[of_task["regime"] == "cot"].iterrows())
    pairs = [pair for cot in cots for pair in _pairs(cot, of_task, within, spent)]
    return pd.DataFrame(pairs, columns=list(CONTROL_COLUMNS))


def _pairs(
    cot: pd.Series, runs: pd.DataFrame, within: float, spent: Callable[[pd.Series, int], float]
) -> Iterator[dict[str, object]]:
    rivals = runs[(runs["run_seed"] == cot["run_seed"]) & (runs["steps"] >= cot["steps"])]
    for _, rival in rivals[rivals["regime"].isin(("direct", "filler"))].iterrows():
        for match, ratio in _matches(cot, rival, within, spent):
            pair = {name: cot[name] for name in ("task", "run_seed", *COMPARED)} | {"match": match, "ratio": ratio}
            yield pair | {f"control_{name}": rival[name] for name in ("regime", *COMPARED)}


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
