"""Which law of depth the runs of a sweep prefer, and the controls without which none is named.

The hypothesis is that K - 1 serial steps need K - 1 layers, so the longest solvable problem is K* = 1 + L. Its rivals
are a tree (K* = 2^(b L)), a depth that is enough for every length, and a depth that buys nothing
(`cotinterp.depth.laws`). A run whose training had not converged says "at least this far", not "no further", so every
law is fitted twice: to the frontiers as they are at this budget (`as trained`), and with those of unconverged runs as
lower bounds (`censored`). A law is named only where both prefer it. The verdict is `cannot tell` where more updates
change the law, where the runs cannot tell the laws apart, and where a control fails; its reason says what would decide.
A law is about these configurations and this training: a length that was not learned may still be expressible.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm

from cotinterp.claims.claim import LAW_THRESHOLDS, LEAST_DEPTH_SEEDS, LEAST_DEPTHS
from cotinterp.claims.depth_verdict import (
    DepthControl,
    DepthVerdict,
    DepthVerdicts,
    DepthWord,
    TrainingBudget,
    parameters_in_words,
    plausible_laws,
    preferred_laws,
)
from cotinterp.depth.frontier import CONVERGED, LEAST_PROBLEMS, MEASURED, depth_frontier, one_recipe
from cotinterp.depth.law_fit import RESAMPLES, LawFits, Trend, bootstrap_laws, fit_laws, leftover_trend
from cotinterp.depth.laws import TREATMENTS, Law, Treatment, frontier_intervals

MOST_NAMED = 4
"""Runs that a reason names one by one."""


def judge_depth(
    table: pd.DataFrame, task: str, regime: str, reading: str = "answer", *, resamples: int = RESAMPLES
) -> DepthVerdict:
    """The verdict on one task and regime of a sweep's tidy table.

    Raises:
        KeyError: The table has no such task, regime and reading; those it has are named. Otherwise as `depth_frontier`.
    """
    runs = depth_frontier(table).frame()
    chosen = runs[(runs["task"] == task) & (runs["regime"] == regime) & (runs["reading"] == reading)]
    if chosen.empty:
        there = sorted(set(runs[["task", "regime", "reading"]].itertuples(index=False, name=None)))
        raise KeyError(f"the table has no runs of {(task, regime, reading)}; it has {there}")
    return judge_runs(chosen, resamples=resamples)


def depth_verdicts(table: pd.DataFrame, *, resamples: int = RESAMPLES) -> DepthVerdicts:
    """The verdict on every task, regime and reading in the table, in alphabetical order."""
    runs = depth_frontier(table).frame()
    groups = runs.groupby(["task", "regime", "reading"], sort=True)
    return DepthVerdicts(tuple(judge_runs(group, resamples=resamples) for _, group in groups), runs)


def judge_runs(runs: pd.DataFrame, *, resamples: int = RESAMPLES) -> DepthVerdict:
    """The verdict on runs of one task, regime and reading: rows of `FrontierResult.frame()`.

    The runs of the most common recipe at the longest budget that has enough depths are judged. Equal runs give equal
    verdicts, in any order.
    """
    runs = runs.sort_values(["n_layers", "steps", "run_seed", "slug"], ignore_index=True)
    recipe, others = one_recipe(runs)
    measured = recipe[recipe["convergence"].isin(MEASURED)]
    steps = _judged_budget(measured if len(measured) else recipe)
    judged = measured[measured["steps"] == steps]
    fits, shares = _fitted(judged, resamples)
    budgets = _budgets(measured, steps, fits)
    candidate = _agreed(fits, shares)
    law = candidate or (fits["as trained"].preferred.law if fits else None)
    controls = [*design_controls(judged), *law_controls(judged, fits, law), budget_control(budgets, law)]
    named = candidate is not None and all(control.passes for control in controls)
    word: DepthWord = candidate if named and candidate else "cannot tell"
    first = runs.iloc[0]
    return DepthVerdict(
        task=str(first["task"]),
        regime=str(first["regime"]),
        reading=str(first["reading"]),
        law=word,
        reason=_reason_named(word, fits, shares, judged)
        if word != "cannot tell"
        else _reason_open(judged if len(judged) else recipe, fits, shares, controls),
        steps=steps,
        depths=tuple(int(depth) for depth in sorted(judged["n_layers"].unique())),
        k_low=int(judged["k_low"].min()) if len(judged) else -1,
        k_top=int(judged["k_top"].max()) if len(judged) else -1,
        n_runs=len(judged),
        n_converged=_converged(judged),
        n_missing=int(((recipe["steps"] == steps) & ~recipe["convergence"].isin(MEASURED)).sum()),
        n_other=int(others["convergence"].isin(MEASURED).sum()),
        fits=fits,
        shares=shares,
        sensitivity=budgets,
        controls=tuple(controls),
        beyond_source=_beyond_source(runs),
    )


def design_controls(runs: pd.DataFrame) -> tuple[DepthControl, ...]:
    """Enough depths, enough seeds at each, something solved, and accuracies that fall with K."""
    seeds = runs.groupby("n_layers")["run_seed"].nunique()
    least = int(seeds.min()) if len(seeds) else 0
    solved = int((runs["frontier"] > 0).sum())
    odd = int((runs["longest"] > runs["frontier"]).sum())
    return (
        DepthControl("depths", len(seeds) >= LEAST_DEPTHS, f"{len(seeds)} measured, {LEAST_DEPTHS} needed"),
        DepthControl(
            "seeds", least >= LEAST_DEPTH_SEEDS, f"at least {least} at each depth, {LEAST_DEPTH_SEEDS} needed"
        ),
        DepthControl("solved", solved > 0, f"{solved} of {len(runs)} runs solve the shortest length"),
        DepthControl(
            "monotone",
            odd < LAW_THRESHOLDS["monotone"].value * max(1, len(runs)),
            f"{odd} of {len(runs)} runs solve a length beyond one that they fail",
        ),
    )


def law_controls(runs: pd.DataFrame, fits: Mapping[Treatment, LawFits], law: Law | None) -> tuple[DepthControl, ...]:
    """That the law describes the runs and leaves no trend over depth, that no run does what it rules out, and that a
    bounded one was seen to bind."""
    if law is None or not fits:
        return ()
    p = min(found.misfit[law] for found in fits.values())
    describes = DepthControl(
        "fit", p >= LAW_THRESHOLDS["misfit"].value, f"{law} against a K* of its own at every depth, p = {p:.2g}"
    )
    differing = {fits[one]: one for one in reversed(TREATMENTS)}
    trends = [leftover_trend(frontier_intervals(runs, one), found.fits[law]) for found, one in differing.items()]
    left = DepthControl("trend", *_trend(law, trends, runs))
    best = best_control(runs, fits, law)
    if law == "constant":
        return describes, left, best
    binding = min(_binding(runs, treatment) for treatment in TREATMENTS)
    wanted = LAW_THRESHOLDS["binding"].value
    says = f"{binding} depths have a frontier inside the measured lengths, {wanted:.0f} needed for a bounded law"
    return describes, left, best, DepthControl("binding", binding >= wanted, says)


def best_control(runs: pd.DataFrame, fits: Mapping[Treatment, LawFits], law: Law) -> DepthControl:
    """That the best run of each depth solves no more than the law gives its depth, within the spread among seeds.

    Training goes wrong downward: a seed that fails where another solves is no evidence about depth, and a run that
    solves a length shows that its depth can. So one run far above the law speaks against it, and none far below does.
    """
    depths = [int(depth) for depth in runs["n_layers"].unique()]
    found = []
    for treatment, depth in itertools.product(fits, depths):
        fit, here = fits[treatment].fits[law], runs[runs["n_layers"] == depth]
        solved, allowed = int(here["frontier"].max()), fit.expected(float(depth))
        above = (np.log2(max(solved, 1) - 0.5) - np.log2(allowed)) / fit.sigma if solved else -np.inf
        chance = float(-np.expm1(len(here) * norm.logcdf(above))) if np.isfinite(above) else 1.0
        says = (
            f"L{depth}: the best of {len(here)} runs solves K = {solved}, {law} gives {allowed:.1f}, p = {chance:.2g}"
        )
        found.append((chance, says))
    p, says = min(found)
    return DepthControl("best", p * len(depths) >= LAW_THRESHOLDS["misfit"].value, says)


def budget_control(budgets: Sequence[TrainingBudget], law: Law | None) -> DepthControl:
    """That no other budget clearly prefers another law. One budget alone passes, and says so."""
    weight = LAW_THRESHOLDS["weight"].value
    clear = {
        f"{budget.steps} steps, {treatment}": preferred
        for budget in budgets[:-1]
        for treatment, (preferred, at) in budget.preferred.items()
        if at >= weight and len(budget.depths) >= LEAST_DEPTHS
    }
    other = [f"{where}: {preferred}" for where, preferred in clear.items() if law is not None and preferred != law]
    if other:
        return DepthControl("budget", False, f"the law changes with the training budget ({'; '.join(other)})")
    if len(budgets) < 2:
        return DepthControl("budget", True, "one budget only: how the law moves with training was not measured")
    return DepthControl("budget", True, f"no other law at {', '.join(str(one.steps) for one in budgets[:-1])} steps")


def _trend(law: Law, trends: Sequence[Trend], runs: pd.DataFrame) -> tuple[bool, str]:
    """No trend may be left beyond the law; and that depth buys nothing must be shown, not just fail to be refuted."""
    worst = min(trends, key=lambda trend: trend.p)
    passes = worst.p >= LAW_THRESHOLDS["trend"].value
    if law == "none":
        worst = max(trends, key=lambda trend: trend.high) if passes else worst
        passes = passes and worst.high <= LAW_THRESHOLDS["growth"].value
    ends = f"L{runs['n_layers'].min()} to L{runs['n_layers'].max()}"
    factor = f"{worst.factor:.2f} [{worst.low:.2f}, {worst.high:.2f}]"
    return passes, f"beyond {law}, K* changes by a factor of {factor} from {ends}, p = {worst.p:.2g}"


def _binding(runs: pd.DataFrame, treatment: Treatment) -> int:
    """Depths at which at least half of the runs have K* between two measured lengths."""
    data = frontier_intervals(runs, treatment)
    inside = np.isfinite(data.low) & np.isfinite(data.high)
    return sum(bool(inside[data.depth == depth].mean() >= 0.5) for depth in data.depths)


def _judged_budget(runs: pd.DataFrame) -> int:
    """The longest budget with enough depths; the one with most where none has."""
    depths = runs.groupby("steps")["n_layers"].nunique()
    enough = depths[depths >= LEAST_DEPTHS]
    return int(enough.index.max()) if len(enough) else int(depths[depths == depths.max()].index.max())


def _fitted(runs: pd.DataFrame, resamples: int) -> tuple[dict[Treatment, LawFits], dict[Treatment, dict[Law, float]]]:
    if runs.empty:
        return {}, {}
    shares = {
        one: dict(bootstrap_laws(frontier_intervals(runs, one), resamples=resamples).shares) for one in _differing(runs)
    }
    return _fits(runs), {one: shares.get(one, shares["as trained"]) for one in TREATMENTS}


def _fits(runs: pd.DataFrame) -> dict[Treatment, LawFits]:
    fits = {one: fit_laws(frontier_intervals(runs, one)) for one in _differing(runs)}
    return {one: fits.get(one, fits["as trained"]) for one in TREATMENTS}


def _differing(runs: pd.DataFrame) -> tuple[Treatment, ...]:
    """The treatments that are not the same: where all runs converged there is nothing to censor."""
    return TREATMENTS[:1] if _converged(runs) == len(runs) else TREATMENTS


def _budgets(measured: pd.DataFrame, judged: int, fits: dict[Treatment, LawFits]) -> tuple[TrainingBudget, ...]:
    """Every budget on the depths and seeds that it shares with the judged one."""
    once = measured[measured["steps"] == judged].drop_duplicates(["n_layers", "run_seed"])
    partner = once.set_index(["n_layers", "run_seed"])["frontier"]
    found = []
    for steps in sorted(measured["steps"].unique(), key=lambda one: (one == judged, one)):
        runs = measured[measured["steps"] == steps]
        there = pd.MultiIndex.from_frame(runs[["n_layers", "run_seed"]])
        runs, there = runs[there.isin(partner.index)], there[there.isin(partner.index)]
        if runs.empty:
            continue
        change = runs["frontier"].to_numpy() - partner.loc[there].to_numpy()
        here = fits if steps == judged else _fits(runs)
        depths = tuple(int(depth) for depth in sorted(runs["n_layers"].unique()))
        counts = (len(runs), _converged(runs), int((change < 0).sum()), int((change > 0).sum()))
        found.append(TrainingBudget(int(steps), depths, *counts, preferred_laws(here)))
    return tuple(found)


def _agreed(fits: dict[Treatment, LawFits], shares: dict[Treatment, dict[Law, float]]) -> Law | None:
    """The law that both treatments prefer clearly, if there is one."""
    clear = {
        treatment: found.preferred.law
        for treatment, found in fits.items()
        if found.preferred.weight >= LAW_THRESHOLDS["weight"].value
        and shares[treatment][found.preferred.law] >= LAW_THRESHOLDS["share"].value
    }
    return clear["censored"] if len(clear) == len(TREATMENTS) and len(set(clear.values())) == 1 else None


def _converged(runs: pd.DataFrame) -> int:
    return int(runs["convergence"].isin(CONVERGED).sum())


def _beyond_source(runs: pd.DataFrame) -> tuple[str, ...]:
    beyond = runs[runs["convergence"].isin(MEASURED) & (runs["longest"] > runs["n_layers"] + 1)]
    return tuple(
        f"L{run.n_layers} d{run.d_model} seed {run.run_seed}, {run.steps} steps: K = {run.longest}"
        for run in beyond.itertuples()
    )


def _reason_named(
    law: str, fits: dict[Treatment, LawFits], shares: dict[Treatment, dict[Law, float]], runs: pd.DataFrame
) -> str:
    preferred = [
        f"{treatment}: {parameters_in_words(fit)}, weight {fit.weight:.2f}, {share[fit.law]:.0%} of resamples"
        for treatment, share in shares.items()
        for fit in [fits[treatment].preferred]
    ]
    converged = (
        f"{_converged(runs)} of {len(runs)} runs converged, K from {runs['k_low'].min()} to {runs['k_top'].max()}"
    )
    return f"{law} ({'; '.join(preferred)}); {converged}"


def _reason_open(
    runs: pd.DataFrame,
    fits: dict[Treatment, LawFits],
    shares: dict[Treatment, dict[Law, float]],
    controls: Sequence[DepthControl],
) -> str:
    """Why no law is named, which remain, and what would decide."""
    if runs.empty or not runs["convergence"].isin(MEASURED).any():
        if (runs["convergence"] == "unmeasured").any():
            return (
                f"no length of any run has {LEAST_PROBLEMS} held-out problems, from which on it counts as measured; "
                "take longer problems, or evaluate on more of them"
            )
        return "no run was measured; train and evaluate them"
    best = "; ".join(
        f"{treatment}, {law} has weight {weight:.2f} and {shares[treatment][law]:.0%} of resamples"
        for treatment, (law, weight) in preferred_laws(fits).items()
    )
    failed = [f"{control.name}: {control.says}" for control in controls if not control.passes]
    left = f"not excluded: {', '.join(plausible_laws(fits))}"
    return ". ".join([best, *failed, left, _what_would_decide(runs)])


def _what_would_decide(runs: pd.DataFrame) -> str:
    """In the order of what is cheapest to know: steps, lengths, depths."""
    wanted = []
    unconverged = runs[~runs["convergence"].isin(CONVERGED)]
    if len(unconverged):
        names = [f"L{run.n_layers} seed {run.run_seed} {run.convergence}" for run in unconverged.itertuples()]
        more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        wanted.append(
            f"more steps ({len(unconverged)} of {len(runs)} had not converged: {', '.join(names[:MOST_NAMED])}{more})"
        )
    full = int((runs["convergence"] == "complete").sum())
    if full:
        wanted.append(f"longer problems ({full} of {len(runs)} solve every K up to {runs['k_top'].max()})")
    wanted.append(f"more depths than {', '.join(f'L{depth}' for depth in sorted(runs['n_layers'].unique()))}")
    return f"What would decide: {'; '.join(wanted)}"
