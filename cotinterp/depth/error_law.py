"""How accuracy falls with the number of steps: by errors that add up to a threshold, or at one rate a step?

Three laws of the accuracy a after c steps; a problem of K operands takes c = K - 1.

- `threshold`: a = P(q / 2, q / (2 r c^2)), P being the regularized lower incomplete gamma function (Raju &
  Netrapalli 2026, arXiv 2601.14175, eq. 1, as a summary of the paper gives it: a = 1 - Gamma(q/2, q/(2 r c^2)) /
  Gamma(q/2)). In q directions an error grows as a
  normal number times c; the answer is wrong where its mean square, r c^2 chi^2_q / q, exceeds 1. So r is the elementary
  noise rate, half of the answers are lost at about c = 1 / sqrt(r), and q, the number of plausible errors, says how
  sharp that is: far beyond, a falls as c^-q.
- `one-rate`: a = (1 - e)^c. Each step goes wrong with the same probability, whatever was before.
- `level`: a is the same at every length. Nothing adds up.

The paper counts as c what an ideal solver must process, up to a factor, which r takes up, and multiplies errors of
hosted models on problems with endless answers. Where a task has few answers a wrong one is right now and then: `chance`
is that share, a' = chance + (1 - chance) a, in all three; 0 is the paper's law.

Laws are fitted to one model at a time by maximum likelihood, on some lengths, and judged on others that they have not
seen. A model is the unit: intervals redraw the models, and within each its problems. That a law predicts says nothing
of a mechanism, least of all that noise in attention is one; and over few lengths laws imitate one another.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import expit, gammainc, logit

from cotinterp.figures import lines
from cotinterp.results import Result, with_labels

ErrorLaw = Literal["threshold", "one-rate", "level"]
ERROR_LAWS: tuple[ErrorLaw, ...] = get_args(ErrorLaw)
PARAMETERS: Mapping[ErrorLaw, tuple[str, ...]] = {"threshold": ("r", "q"), "one-rate": ("e",), "level": ("a",)}
"""What each law is fitted by."""
LEAST = 10
"""Wrong answers, and right ones beyond chance, on the fitted lengths, below which a model says nothing."""
NOISE = 3.0
"""Standard errors by which right answers must be more than chance."""
BOUNDS: Mapping[str, tuple[float, float]] = {
    "r": (1e-6, 1e6),
    "q": (0.1, 100.0),
    "e": (3e-4, 0.9997),
    "a": (3e-4, 0.9997),
}
"""Range of every parameter. At an end of it the shape of the law is not that of the accuracies (q of 0.1 is hardly a
threshold; the paper finds 1 to 15)."""
_CELLS = {"r": 121, "q": 61, "e": 321, "a": 321}
_SURE = 1e-9
"""Least distance of a predicted accuracy from 0 and 1: a likelihood of zero would exclude a law for one answer."""


def law_accuracy(
    law: ErrorLaw,
    parameters: Float[np.ndarray, "*cells n_parameters"],
    steps: Float[np.ndarray, " lengths"],
    chance: float = 0.0,
) -> Float[np.ndarray, "*cells lengths"]:
    """Accuracy after so many steps, for parameters in the order of `PARAMETERS`."""
    one = parameters[..., :1]
    if law == "threshold":
        q = parameters[..., 1:]
        known = gammainc(q / 2, q / (2 * one * steps**2))
    else:
        known = (1 - one) ** steps if law == "one-rate" else one + 0 * steps
    return np.asarray(chance + (1 - chance) * known)


@dataclass(frozen=True)
class ErrorLawFit:
    """One law on several models of one kind.

    Attributes:
        parameters: By name: the median over models, and its 95% interval.
        error: Mean distance of predicted and measured accuracy on the lengths that were not fitted, over models and
            lengths, with its 95% interval. Sampling of the measured accuracies is in it.
        gain: By how much that is less than the error of `one-rate`, with its interval: positive where this law
            predicts better.
    """

    law: ErrorLaw
    parameters: dict[str, tuple[float, float, float]]
    error: tuple[float, float, float]
    gain: tuple[float, float, float]


@dataclass(frozen=True)
class ErrorLawFits(Result):
    """All laws on the same models, by `fit_error_laws`.

    Attributes:
        seeds: Models that were fitted.
        left_out: Models that hardly err on the fitted lengths, or are hardly above chance there (LEAST, NOISE).
        accuracy: For each length, its steps and whether it was fitted, what was measured (mean over models, lowest,
            highest), and what each law says, fitted to each model, on average.
    """

    fits: Mapping[ErrorLaw, ErrorLawFit]
    seeds: int
    left_out: int
    accuracy: pd.DataFrame
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row per law; parameters that it has not are missing."""
        rows = []
        for law, fit in self.fits.items():
            row: dict[str, str | int | float] = {"law": law, "seeds": self.seeds, "left_out": self.left_out}
            named = {name: fit.parameters.get(name, (np.nan,) * 3) for each in PARAMETERS.values() for name in each}
            for name, values in (named | {"error": fit.error, "gain": fit.gain}).items():
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
            rows.append(row)
        return with_labels(pd.DataFrame(rows), self.labels)

    def curves(self) -> pd.DataFrame:
        """One row per length and curve: `measured`, with the range of the models, and each law."""
        table, parts = self.accuracy, []
        for name in ("measured", *self.fits):
            low, high = (table["lowest"], table["highest"]) if name == "measured" else (table[name], table[name])
            part = table[["k", "fitted"]].assign(curve=name, accuracy=table[name], lowest=low, highest=high)
            parts.append(part)
        return with_labels(pd.concat(parts, ignore_index=True), self.labels)

    def figure(self) -> go.Figure:
        """Accuracy by K, measured and by each law."""
        last = int(self.accuracy.loc[self.accuracy["fitted"], "k"].max())
        return lines(
            self.curves(), x="k", y="accuracy", low="lowest", high="highest", color="curve", bounds=(0.0, 1.0),
            title=f"Accuracy by K; laws fitted up to K = {last}", x_title="operands K", y_title="share that is right",
        )  # fmt: skip


def fit_error_laws(
    counts: pd.DataFrame,
    *,
    fitted: Collection[int],
    chance: float = 0.0,
    resamples: int = 400,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> ErrorLawFits:
    """Fit every law to models that differ in their seed alone, on some lengths, and judge it on the others.

    Args:
        counts: A row for each model and length: `run_seed`, `k`, `n` problems, of which `correct` are right.
        fitted: The lengths K that laws are fitted to; all others in the table are predicted.
        chance: Share of wrong computations that are right by accident, such as one over the number of answers.

    Raises:
        ValueError: A column is missing or a row stands twice, fewer than two lengths are fitted or none is left to be
            predicted, or every model is left out (`ErrorLawFits.left_out`).
    """
    n, correct, k = _by_model(counts)
    chosen = np.isin(k, list(fitted))
    if chosen.sum() < 2 or chosen.all():
        raise ValueError(
            f"fitted {sorted(fitted)} of the lengths {k.tolist()}: two must be fitted at least, and one left to predict"
        )
    telling = _telling(n[:, chosen].sum(1), correct[:, chosen].sum(1), chance)
    if not telling.any():
        raise ValueError(
            f"no model has {LEAST} wrong answers on the fitted lengths and as many right ones beyond chance: take "
            "models that were trained less, or more"
        )
    n, correct, steps = n[telling], correct[telling], (k - 1).astype(float)
    rng = np.random.default_rng(seed)
    redrawn = np.stack([rng.binomial(n, correct / np.maximum(n, 1)) for _ in range(resamples)], axis=1)
    models = rng.integers(len(n), size=(resamples, len(n)))
    best, drawn = {}, {}
    for law in ERROR_LAWS:
        best[law] = np.stack([_fit(law, steps, n[i], correct[i], chosen, chance) for i in range(len(n))])
        table = _Table.of(law, steps, chosen, chance)
        drawn[law] = np.stack([table.best(n[i], redrawn[i]) for i in range(len(n))])
    errors = {law: _errors(law_accuracy(law, best[law], steps, chance), n, correct, ~chosen) for law in ERROR_LAWS}
    again = {
        law: _errors(law_accuracy(law, drawn[law], steps, chance), n[:, None], redrawn, ~chosen) for law in ERROR_LAWS
    }
    order = np.arange(resamples)[:, None]
    fits = {}
    for law in ERROR_LAWS:
        medians = np.median(drawn[law][models, order], axis=1)
        values = np.median(best[law], axis=0)
        fits[law] = ErrorLawFit(
            law,
            {name: _spread(values[i], medians[:, i]) for i, name in enumerate(PARAMETERS[law])},
            _spread(errors[law].mean(), again[law][models, order].mean(1)),
            _spread(
                (errors["one-rate"] - errors[law]).mean(),
                (again["one-rate"] - again[law])[models, order].mean(1),
            ),
        )
    measured = np.where(n > 0, correct / np.maximum(n, 1), np.nan)
    said = {law: law_accuracy(law, best[law], steps, chance).mean(0) for law in ERROR_LAWS}
    summary = {"measured": np.nanmean(measured, 0), "lowest": np.nanmin(measured, 0), "highest": np.nanmax(measured, 0)}
    accuracy = pd.DataFrame({"k": k, "steps": k - 1, "fitted": chosen} | summary | said)
    return ErrorLawFits(fits, len(n), int((~telling).sum()), accuracy, dict(labels or {}))


def _by_model(
    counts: pd.DataFrame,
) -> tuple[Int[np.ndarray, "models lengths"], Int[np.ndarray, "models lengths"], Int[np.ndarray, " lengths"]]:
    """Problems and right answers of each model at each length, and the lengths; no problems where a row is missing."""
    missing = [name for name in ("run_seed", "k", "n", "correct") if name not in counts.columns]
    if missing:
        raise ValueError(f"the counts lack the columns {missing}; they have {list(counts.columns)}")
    if counts.duplicated(["run_seed", "k"]).any():
        row = counts[counts.duplicated(["run_seed", "k"])].iloc[0]
        raise ValueError(
            f"seed {row['run_seed']} has two rows for k {row['k']}: give the counts of one kind of model, one side of "
            "the split and one reading"
        )
    wide = counts[counts["k"] > 1].pivot(index="run_seed", columns="k", values=["n", "correct"]).fillna(0).astype(int)
    return wide["n"].to_numpy(), wide["correct"].to_numpy(), wide["n"].columns.to_numpy().astype(int)


def _telling(
    n: Int[np.ndarray, " models"], correct: Int[np.ndarray, " models"], chance: float
) -> Bool[np.ndarray, " models"]:
    """Whether a model errs, and does better than chance."""
    least = np.maximum(LEAST, NOISE * np.sqrt(n * chance * (1 - chance)))
    return np.asarray((n - correct >= LEAST) & (correct - chance * n >= least))


def _spread(value: float, draws: Float[np.ndarray, " resamples"]) -> tuple[float, float, float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(value), float(low), float(high)


def _errors(
    predicted: Float[np.ndarray, "*models lengths"],
    n: Int[np.ndarray, "*#models lengths"],
    correct: Int[np.ndarray, "*models lengths"],
    tested: Bool[np.ndarray, " lengths"],
) -> Float[np.ndarray, "*models"]:
    """Mean distance of predicted and measured accuracy over the tested lengths that have problems."""
    there = tested & (n > 0)
    off = np.abs(predicted - correct / np.maximum(n, 1)) * there
    return np.asarray(off.sum(-1) / np.maximum(there.sum(-1), 1))


def _scales(law: ErrorLaw) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Into the scale in which the parameters of a law are searched, and back."""
    return (np.log10, lambda scaled: 10.0**scaled) if law == "threshold" else (logit, expit)


@dataclass(frozen=True, eq=False)
class _Table:
    """A law over its grid: the logarithms of being right and of being wrong, at each cell and fitted length."""

    cells: Float[np.ndarray, "cells n_parameters"]
    right: Float[np.ndarray, "cells lengths"]
    wrong: Float[np.ndarray, "cells lengths"]

    @classmethod
    def of(
        cls, law: ErrorLaw, steps: Float[np.ndarray, " lengths"], chosen: Bool[np.ndarray, " lengths"], chance: float
    ) -> "_Table":
        into, back = _scales(law)
        ends = [into(BOUNDS[name]) for name in PARAMETERS[law]]
        axes = [np.linspace(low, high, _CELLS[name]) for name, (low, high) in zip(PARAMETERS[law], ends, strict=True)]
        cells = back(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes)))
        sure = law_accuracy(law, cells, steps, chance).clip(_SURE, 1 - _SURE)
        return cls(cells, np.log(sure) * chosen, np.log1p(-sure) * chosen)

    def best(
        self, n: Int[np.ndarray, " lengths"], correct: Int[np.ndarray, "*draws lengths"]
    ) -> Float[np.ndarray, "*draws n_parameters"]:
        """The most likely cell for these counts."""
        likelihood = correct @ self.right.T + (n - correct) @ self.wrong.T
        return np.asarray(self.cells[likelihood.argmax(-1)])


def _fit(
    law: ErrorLaw,
    steps: Float[np.ndarray, " lengths"],
    n: Int[np.ndarray, " lengths"],
    correct: Int[np.ndarray, " lengths"],
    chosen: Bool[np.ndarray, " lengths"],
    chance: float,
) -> Float[np.ndarray, " n_parameters"]:
    """The most likely parameters: from the best cell of the grid on, inside its bounds."""
    into, back = _scales(law)
    bounds = [tuple(into(BOUNDS[name])) for name in PARAMETERS[law]]

    def cost(at: Float[np.ndarray, " n_parameters"]) -> float:
        sure = law_accuracy(law, back(at), steps, chance).clip(_SURE, 1 - _SURE)
        return -float(((correct * np.log(sure) + (n - correct) * np.log1p(-sure)) * chosen).sum())

    begun = into(_Table.of(law, steps, chosen, chance).best(n, correct)).clip(*np.transpose(bounds))
    return np.asarray(back(minimize(cost, begun, method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-4}).x))
