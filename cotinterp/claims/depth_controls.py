"""Conditions without which no law of depth is named: of the design, of the law, of the training budget."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cotinterp.claims.depth_verdict import Budget, DepthControl
from cotinterp.claims.thresholds import LAW_THRESHOLDS, LEAST_DEPTH_SEEDS, LEAST_DEPTHS
from cotinterp.sweeps.law_fit import LawFits
from cotinterp.sweeps.law_trend import Trend, leftover_trend
from cotinterp.sweeps.laws import TREATMENTS, Law, Treatment, observed


def design_controls(runs: pd.DataFrame) -> tuple[DepthControl, ...]:
    """Enough depths, enough seeds at each, something solved, and accuracies that fall with K."""
    seeds = runs.groupby("n_layers")["seed"].nunique()
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
    """That the law describes the runs and leaves no trend over depth, and that a bounded one was seen to bind."""
    if law is None or not fits:
        return ()
    p = min(found.misfit[law] for found in fits.values())
    held = DepthControl(
        "fit", p >= LAW_THRESHOLDS["misfit"].value, f"{law} against a K* of its own at every depth, p = {p:.2g}"
    )
    differing = {fits[one]: one for one in reversed(TREATMENTS)}
    trends = [leftover_trend(observed(runs, one), found.fits[law]) for found, one in differing.items()]
    left = DepthControl("trend", *_trend(law, trends, runs))
    if law == "constant":
        return held, left
    binding = min(_binding(runs, treatment) for treatment in TREATMENTS)
    wanted = LAW_THRESHOLDS["binding"].value
    says = f"{binding} depths have a frontier inside the measured lengths, {wanted:.0f} needed for a bounded law"
    return held, left, DepthControl("binding", binding >= wanted, says)


def budget_control(budgets: Sequence[Budget], law: Law | None) -> DepthControl:
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
    data = observed(runs, treatment)
    inside = np.isfinite(data.low) & np.isfinite(data.high)
    return sum(bool(inside[data.depth == depth].mean() >= 0.5) for depth in data.depths)
