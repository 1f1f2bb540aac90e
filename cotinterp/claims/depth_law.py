"""Does depth limit how long a problem can be answered, and by which law? Judged from the runs of a sweep.

The hypothesis as its source has it: K - 1 serial steps need K - 1 layers, so K* = 1 + L. Its rivals: a tree (K* = 2^(b
L)), a depth that is enough for every length, and a depth that buys nothing (`cotinterp.sweeps.laws`). A run whose
training had not converged says "at least so far", not "no further", so every law is fitted twice: to the frontiers as
they are at this budget, and with unconverged runs as lower bounds. Only what both prefer is named. Where more updates
change the law, where the runs cannot tell the laws apart, and where a control fails, the verdict is `cannot tell`, and
says what would decide.
"""

from collections.abc import Sequence

import pandas as pd

from cotinterp.claims.depth_controls import budget_control, design_controls, law_controls
from cotinterp.claims.depth_verdict import (
    Budget,
    DepthControl,
    DepthVerdict,
    DepthVerdicts,
    DepthWord,
    in_words,
    preferences,
    remaining,
)
from cotinterp.claims.thresholds import LAW_THRESHOLDS, LEAST_DEPTHS
from cotinterp.sweeps.frontier import CONVERGED, MEASURED, frontier, one_recipe
from cotinterp.sweeps.law_bootstrap import RESAMPLES, bootstrap_laws
from cotinterp.sweeps.law_fit import LawFits, fit_laws
from cotinterp.sweeps.laws import TREATMENTS, Law, Treatment, observed

FEW = 4
"""Runs that a reason names one by one."""


def judge_depth(
    table: pd.DataFrame, task: str, regime: str, reading: str = "answer", *, resamples: int = RESAMPLES
) -> DepthVerdict:
    """The verdict on one task and regime of a sweep's tidy table.

    Raises:
        KeyError: The table has no such task, regime and reading; those it has are named. Otherwise as `frontier`.
    """
    runs = frontier(table).frame()
    chosen = runs[(runs["task"] == task) & (runs["regime"] == regime) & (runs["reading"] == reading)]
    if chosen.empty:
        there = sorted(set(runs[["task", "regime", "reading"]].itertuples(index=False, name=None)))
        raise KeyError(f"the table has no runs of {(task, regime, reading)}; it has {there}")
    return judge_runs(chosen, resamples=resamples)


def depth_verdicts(table: pd.DataFrame, *, resamples: int = RESAMPLES) -> DepthVerdicts:
    """The verdict on every task, regime and reading in the table, in alphabetical order."""
    runs = frontier(table).frame()
    groups = runs.groupby(["task", "regime", "reading"], sort=True)
    return DepthVerdicts(tuple(judge_runs(group, resamples=resamples) for _, group in groups), runs)


def judge_runs(runs: pd.DataFrame, *, resamples: int = RESAMPLES) -> DepthVerdict:
    """The verdict on runs of one task, regime and reading: rows of `FrontierResult.frame()`.

    The runs of the most common recipe at the longest budget that has enough depths are judged. Equal runs give equal
    verdicts, in any order.
    """
    runs = runs.sort_values(["n_layers", "steps", "seed", "slug"], ignore_index=True)
    recipe, others = one_recipe(runs)
    measured = recipe[recipe["standing"].isin(MEASURED)]
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
        reason=_named(word, fits, shares, judged) if word != "cannot tell" else _open(judged, fits, shares, controls),
        steps=steps,
        depths=tuple(int(depth) for depth in sorted(judged["n_layers"].unique())),
        k_low=int(judged["k_low"].min()) if len(judged) else -1,
        k_top=int(judged["k_top"].max()) if len(judged) else -1,
        n_runs=len(judged),
        n_converged=_converged(judged),
        n_missing=int(((recipe["steps"] == steps) & ~recipe["standing"].isin(MEASURED)).sum()),
        n_other=int(others["standing"].isin(MEASURED).sum()),
        fits=fits,
        shares=shares,
        sensitivity=budgets,
        controls=tuple(controls),
        beyond_source=_beyond_source(runs),
    )


def _judged_budget(runs: pd.DataFrame) -> int:
    """The longest budget with enough depths; the one with most where none has."""
    depths = runs.groupby("steps")["n_layers"].nunique()
    enough = depths[depths >= LEAST_DEPTHS]
    return int(enough.index.max()) if len(enough) else int(depths[depths == depths.max()].index.max())


def _fitted(runs: pd.DataFrame, resamples: int) -> tuple[dict[Treatment, LawFits], dict[Treatment, dict[Law, float]]]:
    if runs.empty:
        return {}, {}
    shares = {one: dict(bootstrap_laws(observed(runs, one), resamples=resamples).shares) for one in _differing(runs)}
    return _fits(runs), {one: shares.get(one, shares["as trained"]) for one in TREATMENTS}


def _fits(runs: pd.DataFrame) -> dict[Treatment, LawFits]:
    fits = {one: fit_laws(observed(runs, one)) for one in _differing(runs)}
    return {one: fits.get(one, fits["as trained"]) for one in TREATMENTS}


def _differing(runs: pd.DataFrame) -> tuple[Treatment, ...]:
    """The treatments that are not the same: where all runs converged there is nothing to censor."""
    return TREATMENTS[:1] if _converged(runs) == len(runs) else TREATMENTS


def _budgets(measured: pd.DataFrame, judged: int, fits: dict[Treatment, LawFits]) -> tuple[Budget, ...]:
    """Every budget on the depths and seeds that it shares with the judged one."""
    once = measured[measured["steps"] == judged].drop_duplicates(["n_layers", "seed"])
    partner = once.set_index(["n_layers", "seed"])["frontier"]
    found = []
    for steps in sorted(measured["steps"].unique(), key=lambda one: (one == judged, one)):
        runs = measured[measured["steps"] == steps]
        there = pd.MultiIndex.from_frame(runs[["n_layers", "seed"]])
        runs, there = runs[there.isin(partner.index)], there[there.isin(partner.index)]
        if runs.empty:
            continue
        change = runs["frontier"].to_numpy() - partner.loc[there].to_numpy()
        here = fits if steps == judged else _fits(runs)
        depths = tuple(int(depth) for depth in sorted(runs["n_layers"].unique()))
        counts = (len(runs), _converged(runs), int((change < 0).sum()), int((change > 0).sum()))
        found.append(Budget(int(steps), depths, *counts, preferences(here)))
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
    return int(runs["standing"].isin(CONVERGED).sum())


def _beyond_source(runs: pd.DataFrame) -> tuple[str, ...]:
    beyond = runs[runs["standing"].isin(MEASURED) & (runs["longest"] > runs["n_layers"] + 1)]
    return tuple(
        f"L{run.n_layers} d{run.d_model} seed {run.seed}, {run.steps} steps: K = {run.longest}"
        for run in beyond.itertuples()
    )


def _named(
    law: str, fits: dict[Treatment, LawFits], shares: dict[Treatment, dict[Law, float]], runs: pd.DataFrame
) -> str:
    told = [
        f"{treatment}: {in_words(fit)}, weight {fit.weight:.2f}, {shares[treatment][fit.law]:.0%} of resamples"
        for treatment in TREATMENTS
        for fit in [fits[treatment].preferred]
    ]
    held = f"{_converged(runs)} of {len(runs)} runs converged, K from {runs['k_low'].min()} to {runs['k_top'].max()}"
    return f"{law} ({'; '.join(told)}); {held}"


def _open(
    runs: pd.DataFrame,
    fits: dict[Treatment, LawFits],
    shares: dict[Treatment, dict[Law, float]],
    controls: Sequence[DepthControl],
) -> str:
    """Why no law is named, which remain, and what would decide."""
    if runs.empty:
        return "no run was measured; train and evaluate them"
    best = "; ".join(
        f"{treatment}, {law} has weight {weight:.2f} and {shares[treatment][law]:.0%} of resamples"
        for treatment, (law, weight) in preferences(fits).items()
    )
    failed = [f"{control.name}: {control.says}" for control in controls if not control.passes]
    left = f"not excluded: {', '.join(remaining(fits))}"
    return ". ".join([best, *failed, left, _would_decide(runs)])


def _would_decide(runs: pd.DataFrame) -> str:
    """In the order of what is cheapest to know: steps, lengths, depths."""
    wanted = []
    held = runs[~runs["standing"].isin(CONVERGED)]
    if len(held):
        names = [f"L{run.n_layers} seed {run.seed} {run.standing}" for run in held.itertuples()]
        more = f", and {len(names) - FEW} more" if len(names) > FEW else ""
        wanted.append(f"more steps ({len(held)} of {len(runs)} had not converged: {', '.join(names[:FEW])}{more})")
    full = int((runs["standing"] == "complete").sum())
    if full:
        wanted.append(f"longer problems ({full} of {len(runs)} solve every K up to {runs['k_top'].max()})")
    wanted.append(f"more depths than {', '.join(f'L{depth}' for depth in sorted(runs['n_layers'].unique()))}")
    return f"What would decide: {'; '.join(wanted)}"
