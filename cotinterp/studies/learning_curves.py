"""Accuracy over training as a logistic in log updates, and the time in which a trace is written and not yet read.

Kinetics of Reasoning (arXiv 2510.25791) fits answers at once and after a trace by logistics of three parameters in the
logarithm of the updates, and finds an early phase in which the trace that is written is not what the answer comes from.

    accuracy = floor + (ceiling - floor) / (1 + (midpoint / update) ** slope)

`midpoint` is the update halfway between floor and ceiling, `slope` how sharp the rise is (from a tenth of the way to
nine tenths within a factor 81 ** (1 / slope) of updates), `ceiling` what it ends at. `floor` is given: 0 as published,
or the share that guessing gets right, where a model guesses for a while before it knows. A logistic is a description:
that it fits says nothing of what is learned, and a run that was stopped on its way has no known ceiling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Shaped
from scipy.optimize import minimize
from scipy.special import expit, logit

from cotinterp.figures import lines
from cotinterp.results import Result, bootstrap
from cotinterp.studies.events import AGREES, CANNOT_TELL, DIFFERS, RUN, durable_crossing

SHARPEST = 60.0
"""Largest slope that is looked for: with it all of the rise lies within a factor 1.08 of updates."""
WRITTEN, READ = 0.75, 0.5
"""Steps count as written from this share of right ones on, and as read from this share of edits that are followed."""
_SURE = 1e-6

Numbers = Sequence[int | float] | Shaped[np.ndarray, " moments"]
"""One for each moment."""


class LogisticFit(NamedTuple):
    """One curve. Standard errors, by the curvature of the likelihood, are of the logarithms of midpoint and slope.

    NaN for the standard errors of a curve that no snapshot shows on its way up: its slope is then only bounded below.
    """

    midpoint: float
    slope: float
    ceiling: float
    log_midpoint_se: float
    log_slope_se: float
    ceiling_se: float
    floor: float = 0.0

    def at(self, updates: Numbers) -> Float[np.ndarray, " moments"]:
        """The accuracy after so many updates."""
        log_updates = np.log(np.asarray(updates, dtype=float))
        way = expit(self.slope * (log_updates - np.log(self.midpoint)))
        found: np.ndarray = self.floor + (self.ceiling - self.floor) * way
        return found


def fit_logistic(
    updates: Numbers,
    right: Numbers,
    n: Numbers,
    *,
    ceiling: float | None = None,
    floor: float = 0.0,
) -> LogisticFit:
    """The likeliest logistic for `right` of `n` problems at each moment, moments being independent given the curve.

    Update 0, which has no logarithm, is left out. The same problems are asked at every moment and a curve may leave the
    logistic, so that standard errors are too small where many moments stand: go by those over runs.

    Args:
        ceiling: Fixed at this, for two parameters; None fits it, for three.
        floor: Fixed share that is right before anything is known.

    Raises:
        ValueError: A floor that is no share below 1, fewer moments after update 0 than parameters, nothing ever right,
            or counts that cannot be.
    """
    u, hits, total = (np.asarray(one, dtype=float) for one in (updates, right, n))
    if ((hits < 0) | (hits > total) | (total < 1)).any():
        raise ValueError("each moment needs 1 or more problems, of which none to all are right")
    if not 0 <= floor < 1:
        raise ValueError(f"floor={floor}: a share that is right without knowing anything, from 0 to less than 1")
    u, hits, total = u[u > 0], hits[u > 0], total[u > 0]
    free = 2 if ceiling is not None else 3
    if len(u) < free:
        raise ValueError(f"{len(u)} moments after update 0 for {free} parameters: keep more snapshots")
    if not hits.any():
        raise ValueError("nothing was right at any moment, so there is no rise to fit: train longer")
    x = np.log(u)

    def cost(at: Float[np.ndarray, " parameters"]) -> float:
        top = ceiling if ceiling is not None else expit(at[2])
        p = (floor + (top - floor) * expit(np.exp(at[1]) * (x - at[0]))).clip(_SURE, 1 - _SURE)
        return -float((hits * np.log(p) + (total - hits) * np.log1p(-p)).sum())

    top = float((hits / total).max())
    bounds = [(float(x.min()) - 1, float(x.max()) + 2), (float(np.log(0.05)), float(np.log(SHARPEST))), (-8.0, 16.0)][
        :free
    ]
    begun = [
        np.array([middle, np.log(slope), logit(min(max(top, 0.01), 0.999))][:free])
        for middle in np.quantile(x, np.linspace(0, 1, 9))
        for slope in (1.0, 3.0, 10.0, 30.0)
    ]
    nearest = sorted(begun, key=cost)[:2]
    found = min(
        (minimize(cost, one, method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-5}) for one in nearest),
        key=lambda one: float(one.fun),
    ).x
    errors = _standard_errors(found, x, total, ceiling, floor)
    known = float(expit(found[2])) if ceiling is None else ceiling
    return LogisticFit(float(np.exp(found[0])), float(np.exp(found[1])), known, *errors, floor)


def _standard_errors(
    at: Float[np.ndarray, " parameters"],
    x: Float[np.ndarray, " moments"],
    n: Float[np.ndarray, " moments"],
    ceiling: float | None,
    floor: float,
) -> tuple[float, float, float]:
    """By the expected information of independent binomials, in log midpoint, log slope and ceiling."""
    slope, top = np.exp(at[1]), expit(at[2]) if ceiling is None else ceiling
    s = expit(slope * (x - at[0]))
    p, rise = (floor + (top - floor) * s).clip(_SURE, 1 - _SURE), (top - floor) * s * (1 - s)
    change = np.stack([-rise * slope, rise * slope * (x - at[0]), s][: len(at)])
    information = (change * (n / (p * (1 - p)))) @ change.T
    if np.linalg.cond(information) > 1e12:
        return (np.nan, np.nan, np.nan)
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    return float(errors[0]), float(errors[1]), 0.0 if ceiling is not None else float(errors[2])


@dataclass(frozen=True, eq=False)
class LearningCurves(Result):
    """Logistics of several runs (`learning_curves`).

    Attributes:
        curves: What was measured: task, regime, run_seed, update, n, value.
        fits: By task, regime and seed.
        left_out: Runs in which nothing was ever right.
    """

    curves: pd.DataFrame
    fits: dict[tuple[str, str, int], LogisticFit]
    left_out: tuple[tuple[str, str, int], ...]

    def frame(self) -> pd.DataFrame:
        """tables/learning_curves.csv: one row a run: task, regime, run_seed, the fields of `LogisticFit`, and `off`.

        `off`: the largest distance of a measured accuracy and the logistic. Where it is more than sampling gives, the
        curve is no logistic (a level of guessing on the way up is none), and its midpoint not the update at half.
        """
        rows = []
        for (task, regime, seed), fit in self.fits.items():
            curve = self.curves.query("task == @task and regime == @regime and run_seed == @seed and update > 0")
            off = float(np.abs(fit.at(curve["update"].to_numpy()) - curve["value"]).max())
            rows.append((task, regime, seed, *fit, off))
        return pd.DataFrame(rows, columns=[*RUN, *LogisticFit._fields, "off"])

    def over_runs(self) -> pd.DataFrame:
        """By task, regime and parameter, n runs: the mean (geometric, of midpoint and slope), bootstrap over runs."""
        rows = []
        for (task, regime), runs in self.frame().groupby(["task", "regime"], sort=False):
            for name in ("midpoint", "slope", "ceiling", "off"):
                values, ratio = runs[name].to_numpy(dtype=float), name in ("midpoint", "slope")
                logs = np.log(values) if ratio else values
                of = np.array([logs.mean(), *bootstrap(logs)])
                rows.append((task, regime, name, len(values), *(np.exp(of) if ratio else of)))
        return pd.DataFrame(rows, columns=["task", "regime", "parameter", "n", "value", "ci_low", "ci_high"])

    def figure(self) -> go.Figure:
        """What was measured, and the logistics in dashes; mean over runs."""
        parts = []
        for (task, regime, seed), curve in self.curves.groupby(RUN, sort=False):
            shown = curve[curve["update"] > 0]
            parts.append(shown.assign(curve="measured"))
            if (run := (str(task), str(regime), int(str(seed)))) in self.fits:
                said = self.fits[run].at(shown["update"].to_numpy())
                parts.append(shown.assign(curve="logistic", value=said))
        keys = ["task", "regime", "curve", "update"]
        means = pd.concat(parts).groupby(keys, sort=False)["value"].mean().reset_index()
        figure = lines(
            means, x="update", y="value", color="regime", dash="curve", facet="task", bounds=(0.0, 1.0),
            title="Right answers over training, and logistics in log updates", x_title="updates", y_title="share right",
        )  # fmt: skip
        return figure.update_xaxes(type="log", tickvals=None)


def learning_curves(table: pd.DataFrame, *, ceiling: float | None = None, floor: float = 0.0) -> LearningCurves:
    """`fit_logistic` of held-out accuracy of every run in rows of `Dynamics.frame`. Runs with nothing right: left out.

    Raises:
        ValueError: No run can be fitted.
    """
    rows = table[(table["measure"] == "accuracy") & (table["condition"] == "heldout")]
    curves = rows[[*RUN, "update", "n", "value"]].sort_values("update", kind="stable")
    fits, left_out = {}, []
    for (task, regime, seed), curve in curves.groupby(RUN, sort=True):
        run = (str(task), str(regime), int(str(seed)))
        n = curve["n"].to_numpy(dtype=float)
        right = (curve["value"] * n).round().to_numpy(dtype=float)
        if not right.any():
            left_out.append(run)
            continue
        fits[run] = fit_logistic(curve["update"].to_numpy(dtype=float), right, n, ceiling=ceiling, floor=floor)
    if not fits:
        raise ValueError("nothing is right at any moment of any run: train longer")
    return LearningCurves(curves, fits, tuple(left_out))


@dataclass(frozen=True, eq=False)
class UnreadWindow(Result):
    """The time between steps that are written right and answers that follow edited ones (`unread_window`).

    Attributes:
        windows: task, regime, run_seed, start, end: updates; infinite where the run ends before.
    """

    windows: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """tables/unread_window.csv: a row a run: task, regime, run_seed, start, end, log_ratio (natural)."""
        return self.windows.assign(log_ratio=np.log1p(self.windows["end"]) - np.log1p(self.windows["start"]))

    def summary(self) -> pd.DataFrame:
        """By task and regime: n runs that pass both, `left_out` ones; start, end and log_ratio, each with an interval.

        Geometric means of start and end, mean of the log ratio; percentile bootstrap over runs.
        """
        rows = []
        for (task, regime), runs in self.frame().groupby(["task", "regime"], sort=False):
            known = runs[np.isfinite(runs[["start", "end"]]).all(axis=1)]
            row: dict[str, object] = {"task": task, "regime": regime}
            row |= {"n": len(known), "left_out": len(runs) - len(known)}
            for name in ("start", "end", "log_ratio"):
                values = known[name].to_numpy(dtype=float)
                logs = values if name == "log_ratio" else np.log1p(values)
                of = np.array([logs.mean() if len(logs) else np.nan, *bootstrap(logs)])
                of = of if name == "log_ratio" else np.expm1(of)
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), of.tolist(), strict=True))
            rows.append(row)
        return pd.DataFrame(rows)

    def judged(self) -> str:
        """`agrees` with a window: the interval of the log ratio lies above 0; `differs`: below; else `cannot tell`.

        Also where some run never comes to one of its ends. ValueError for several tasks or regimes.
        """
        found = self.summary()
        if len(found) != 1:
            raise ValueError("a window is judged of one task and regime: give the rows of one")
        low, high, left_out = (float(found[name].iloc[0]) for name in ("log_ratio_low", "log_ratio_high", "left_out"))
        if left_out:
            return CANNOT_TELL
        return AGREES if low > 0 else DIFFERS if high < 0 else CANNOT_TELL

    def figure(self) -> go.Figure:
        """Start and end of every run."""
        known = self.windows.melt(RUN, ["start", "end"], var_name="end of the window", value_name="update")
        known = known[np.isfinite(known["update"])].assign(run=lambda rows: "seed " + rows["run_seed"].astype(str))
        return lines(
            known, x="run", y="update", color="end of the window", facet="regime",
            title="From steps written right to answers that follow an edit", x_title="run", y_title="updates",
        )  # fmt: skip


def unread_window(table: pd.DataFrame, *, written: float = WRITTEN, read: float = READ) -> UnreadWindow:
    """Start and end of the window of every run that writes totals, in rows of `Dynamics.frame`.

    Start: `trace_right` passes `written` durably; end: `follows` passes `read` durably (`events.durable_crossing`). An
    end before the start is a trace that is read before it is right: a negative log ratio.

    Raises:
        ValueError: No run writes totals.
    """
    rows = []
    chosen = table[table["condition"].isin(["heldout", "edited"])].sort_values("update", kind="stable")
    for run, curves in chosen.groupby(RUN, sort=True):
        of = {measure: curve for measure, curve in curves.groupby("measure")}
        if "trace_right" not in of:
            continue
        ends = [
            durable_crossing(of[measure]["update"].tolist(), of[measure]["value"].tolist(), mark)
            for measure, mark in (("trace_right", written), ("follows", read))
        ]
        rows.append((*run, *ends))
    if not rows:
        raise ValueError("no run in this table writes its totals, so there is no trace that could be read")
    return UnreadWindow(pd.DataFrame(rows, columns=[*RUN, "start", "end"]))
