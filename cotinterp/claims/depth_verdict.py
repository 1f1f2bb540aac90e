"""The verdict on the laws of depth: a law or `cannot tell`, with the fits, controls and budgets behind it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.depth.law_fit import LawFit, LawFits
from cotinterp.depth.laws import LAWS, TREATMENTS, Law, Treatment
from cotinterp.figures.depth import frontier_figure
from cotinterp.results.result import Result

DepthWord = Literal["linear", "logarithmic", "constant", "none", "cannot tell"]

DEPTH_COLUMNS = (
    *("task", "regime", "reading", "law", "steps", "depths", "k_low", "k_top", "n_runs", "n_converged", "n_missing"),
    *("as_trained", "as_trained_weight", "as_trained_share", "censored", "censored_weight", "censored_share"),
    *("beyond_source", "controls", "reason"),
)
LAW_COLUMNS = (
    *("task", "regime", "reading", "treatment", "law", "parameters", "sigma", "log_likelihood", "n_parameters"),
    *("n", "aic", "aicc", "weight", "weight_aic", "share", "misfit"),
)
BUDGET_COLUMNS = (
    *("task", "regime", "reading", "steps", "depths", "n_runs", "n_converged", "lower", "higher"),
    *("as_trained", "as_trained_weight", "censored", "censored_weight"),
)


@dataclass(frozen=True)
class DepthControl:
    """A condition without which no law is named.

    Attributes:
        says: What was found, in words.
    """

    name: str
    passes: bool
    says: str


@dataclass(frozen=True)
class TrainingBudget:
    """The same depths and seeds with another number of updates.

    Attributes:
        n_runs: Runs that have a partner of the same depth and seed at the budget that is judged.
        lower, higher: How many of them solve less, or more, than that partner.
        preferred: The law of the greatest weight and its weight, for each treatment of unconverged runs.
    """

    steps: int
    depths: tuple[int, ...]
    n_runs: int
    n_converged: int
    lower: int
    higher: int
    preferred: Mapping[Treatment, tuple[Law, float]]


@dataclass(frozen=True, eq=False)
class DepthVerdict:
    """Which law of depth the frontiers of one task and regime prefer, or that they cannot tell.

    Attributes:
        reading: `answer`, or `tags` of the tagging regime.
        law: Named only where both treatments prefer it clearly and no control fails. It is the law of these models,
            trained so, on lengths from k_low to k_top; what deeper ones or longer training would do it does not say.
        steps: Updates of the runs that are judged.
        n_missing: Runs of that budget that are unfinished, failed, absent or not measured.
        n_other: Measured runs of another recipe (width, data, learning rate), left aside.
        fits, shares: For each treatment the four laws, and how many resamples prefer each. Empty where nothing was
            measured.
        sensitivity: Every budget there is, the judged one last.
        beyond_source: Runs that solve more than K = L + 1, which the source holds to be impossible for an answer
            without written steps. Of every budget and recipe, converged or not.
    """

    task: str
    regime: str
    reading: str
    law: DepthWord
    reason: str
    steps: int
    depths: tuple[int, ...]
    k_low: int
    k_top: int
    n_runs: int
    n_converged: int
    n_missing: int
    n_other: int
    fits: Mapping[Treatment, LawFits]
    shares: Mapping[Treatment, Mapping[Law, float]]
    sensitivity: tuple[TrainingBudget, ...]
    controls: tuple[DepthControl, ...]
    beyond_source: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """The verdict as values that JSON has; what is infinite or undefined is null."""
        kept = ["task", "regime", "reading", "law", "reason", "steps", "depths", "k_low", "k_top"]
        kept += ["n_runs", "n_converged", "n_missing", "n_other", "beyond_source"]
        tables = {
            "weights": {t: {law: one.weight for law, one in found.fits.items()} for t, found in self.fits.items()},
            "shares": {t: dict(shares) for t, shares in self.shares.items()},
            "parameters": {
                t: {law: dict(one.parameters) for law, one in found.fits.items()} for t, found in self.fits.items()
            },
            "sensitivity": [asdict(budget) for budget in self.sensitivity],
            "controls": [asdict(control) for control in self.controls],
        }
        plain: dict[str, Any] = _plain({name: getattr(self, name) for name in kept} | tables)
        return plain


@dataclass(frozen=True, eq=False)
class DepthVerdicts(Result):
    """The verdicts of every task and regime of a sweep, and the frontiers that they were judged from."""

    verdicts: tuple[DepthVerdict, ...]
    frontiers: pd.DataFrame

    def of(self, task: str, regime: str, reading: str = "answer") -> DepthVerdict:
        """One verdict. KeyError, with those there are."""
        found = {(one.task, one.regime, one.reading): one for one in self.verdicts}
        if (task, regime, reading) not in found:
            raise KeyError(f"no verdict on {(task, regime, reading)}; there are {sorted(found)}")
        return found[task, regime, reading]

    def frame(self) -> pd.DataFrame:
        """One row a verdict: DEPTH_COLUMNS. `as_trained` and `censored` are the laws that each treatment prefers."""
        rows = []
        for one in self.verdicts:
            row: dict[str, object] = {name: getattr(one, name) for name in DEPTH_COLUMNS if hasattr(one, name)}
            row |= {"depths": " ".join(map(str, one.depths)), "beyond_source": len(one.beyond_source)}
            row["controls"] = "; ".join(f"{'' if c.passes else 'FAILS '}{c.name}: {c.says}" for c in one.controls)
            for treatment, fits in one.fits.items():
                best, name = fits.preferred, treatment.replace(" ", "_")
                row |= {name: best.law, f"{name}_weight": best.weight}
                row[f"{name}_share"] = one.shares[treatment][best.law]
            rows.append(row)
        return pd.DataFrame(rows, columns=list(DEPTH_COLUMNS))

    def laws_frame(self) -> pd.DataFrame:
        """One row for each verdict, treatment and law: LAW_COLUMNS; parameters in words, with 95% intervals."""
        rows = []
        for one in self.verdicts:
            labels = {"task": one.task, "regime": one.regime, "reading": one.reading}
            for treatment, fits in one.fits.items():
                for law, fit in fits.fits.items():
                    row = {name: getattr(fit, name) for name in LAW_COLUMNS if hasattr(fit, name)}
                    row |= labels | {"treatment": treatment, "parameters": parameters_in_words(fit), "n": fits.n}
                    rows.append(row | {"share": one.shares[treatment][law], "misfit": fits.misfit[law]})
        return pd.DataFrame(rows, columns=list(LAW_COLUMNS))

    def budgets_frame(self) -> pd.DataFrame:
        """One row for each verdict and budget: BUDGET_COLUMNS; how the frontier and the law move with the updates."""
        rows = []
        for one in self.verdicts:
            for budget in one.sensitivity:
                row: dict[str, object] = {"task": one.task, "regime": one.regime, "reading": one.reading}
                row |= asdict(budget) | {"depths": " ".join(map(str, budget.depths))}
                for treatment, (law, weight) in budget.preferred.items():
                    row |= {treatment.replace(" ", "_"): law, f"{treatment.replace(' ', '_')}_weight": weight}
                rows.append(row)
        return pd.DataFrame(rows, columns=list(BUDGET_COLUMNS))

    def curves_frame(self) -> pd.DataFrame:
        """The laws as curves at the judged budget: task, regime, reading, steps, treatment, law, weight, depth, k."""
        rows = []
        for one in self.verdicts:
            for treatment, fits in one.fits.items():
                for depth in np.linspace(one.depths[0], one.depths[-1], 1 + 8 * (one.depths[-1] - one.depths[0])):
                    rows += [
                        (one.task, one.regime, one.reading, one.steps, treatment, law, fit.weight, depth, k)
                        for law, fit in fits.fits.items()
                        for k in [fit.expected(float(depth))]
                    ]
        names = ["task", "regime", "reading", "steps", "treatment", "law", "weight", "depth", "k"]
        return pd.DataFrame(rows, columns=names)

    def json(self) -> str:
        """A list of objects, one a verdict."""
        plain = [one.plain() for one in self.verdicts]
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def figure(self, task: str = "") -> go.Figure:
        """Frontiers with the laws over them, of one task or of all, a row each (`cotinterp.figures.depth`).

        KeyError for a task without a verdict.
        """
        if task and task not in {one.task for one in self.verdicts}:
            raise KeyError(f"no verdict on task {task!r}; there are {sorted({one.task for one in self.verdicts})}")
        words = {(one.task, one.regime, one.reading): one.law for one in self.verdicts}
        runs, curves = self.frontiers, self.curves_frame()
        if task:
            runs, curves = runs[runs["task"] == task], curves[curves["task"] == task]
        return frontier_figure(runs, curves, words)


def parameters_in_words(fit: LawFit) -> str:
    """`b = 1.98 [1.91, 2.09]`; an end that the data leave open is infinite."""
    parameters = (
        f"{name} = {value:.3g} [{low:.3g}, {high:.3g}]" for name, (value, low, high) in fit.parameters.items()
    )
    return ", ".join(parameters)


def preferred_laws(fits: Mapping[Treatment, LawFits]) -> dict[Treatment, tuple[Law, float]]:
    """The law of the greatest weight and its weight, for each treatment."""
    return {t: (fits[t].preferred.law, fits[t].preferred.weight) for t in TREATMENTS if t in fits}


def plausible_laws(fits: Mapping[Treatment, LawFits], least: float = 0.05) -> tuple[Law, ...]:
    """The laws that at least one treatment gives that weight."""
    return tuple(law for law in LAWS if any(found.fits[law].weight >= least for found in fits.values()))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
