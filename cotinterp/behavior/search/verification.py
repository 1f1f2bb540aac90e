"""How well scores tell right steps from wrong ones: AUROC, calibration, and what shuffled labels leave of both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int

from cotinterp.figures.search import verification_figure
from cotinterp.results import Interval, Result, with_labels

_AT_ONCE = 2**22


def auroc(
    scores: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    *,
    strata: Int[np.ndarray, " n"] | None = None,
) -> float:
    """Area under the receiver operating characteristic: how often a right step scores higher than a wrong one.

    A tie counts half. 0.5 says nothing, 1 tells all apart, below 0.5 the scores point the other way. With `strata` only
    pairs within one stratum are compared. NaN where there is no pair. (Hanley & McNeil 1982.)
    """
    return float(_aurocs(scores, right, np.ones((1, len(scores))), strata)[0])


def calibration(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], *, n_bins: int = 10) -> pd.DataFrame:
    """Reliability table: a row for each bin of equal width that holds scores, which must be probabilities.

    Columns: low and high end of the bin, n, mean score, share of right steps. ValueError for scores outside [0, 1].
    """
    if not _are_probabilities(scores):
        raise ValueError("calibration is about probabilities, and these scores do not lie between 0 and 1")
    number = np.minimum((scores * n_bins).astype(int), n_bins - 1)
    table = pd.DataFrame({"number": number, "score": scores, "right": right.astype(float)})
    found = table.groupby("number").agg(n=("score", "size"), score=("score", "mean"), right=("right", "mean"))
    found = found.reset_index()
    found.insert(0, "bin_low", found["number"] / n_bins)
    found.insert(1, "bin_high", (found["number"] + 1) / n_bins)
    return found.drop(columns="number")


def brier(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
    """Mean squared distance of probability and truth (Brier 1950): 0 is best, 0.25 is a coin; NaN if no probability."""
    return float(np.square(scores - right).mean()) if _are_probabilities(scores) else float("nan")


def calibration_error(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], *, n_bins: int = 10) -> float:
    """Expected calibration error: mean distance of score and share of right ones over bins, by their size.

    0 is best; biased upward where bins hold few (Guo et al. 2017, arXiv 1706.04599). NaN where scores are no
    probabilities.
    """
    if not _are_probabilities(scores):
        return float("nan")
    table = calibration(scores, right, n_bins=n_bins)
    return float(np.average((table["score"] - table["right"]).abs(), weights=table["n"]))


@dataclass(frozen=True, eq=False)
class ScoredSteps:
    """What one scorer makes of some steps, and what they are.

    Attributes:
        scorer: Its name.
        scores: Higher is better, in its own units.
        right: What it is judged by; for the control of `labels` "shuffled" the labels that were dealt out anew.
        labels: "true" or "shuffled".
        where: Further columns that tell it from others of its name, such as model and site.
    """

    scorer: str
    scores: Float[np.ndarray, " step"]
    right: Bool[np.ndarray, " step"]
    labels: str = "true"
    where: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        """What is compared with shuffled labels of its own."""
        return (self.scorer, *(f"{name}={value}" for name, value in sorted(self.where.items())))


@dataclass(frozen=True, eq=False)
class Verification(Result):
    """Scores of the same steps by several scorers, per step until the table.

    It says how well steps can be told apart, not whether the model makes use of what tells them apart
    (`studies.verifier_use`), nor what a search gains by it.

    Attributes:
        problem: Problem of each step: intervals redraw whole problems.
        step: Number of each step in its response.
        facts: Columns of the run.
    """

    scored: tuple[ScoredSteps, ...]
    problem: Int[np.ndarray, " step"]
    step: Int[np.ndarray, " step"]
    facts: Mapping[str, str | int] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 0

    def frame(self) -> pd.DataFrame:
        """A row for each scorer, and for its control of shuffled labels where there is one.

        `auroc` with its 95% interval, problems redrawn; `auroc_at_step` compares steps of one number alone, for later
        steps are more often wrong and a scorer may have noticed no more than that; `selectivity` is the AUROC above
        that with shuffled labels (mean, NaN without); `brier` and `calibration_error` are NaN where scores are no
        probabilities. The interval has no width at an AUROC of 1, which few steps reach easily.
        """
        control: dict[tuple[str, ...], list[float]] = {}
        for one in self.scored:
            if one.labels == "shuffled":
                control.setdefault(one.key, []).append(auroc(one.scores, one.right))
        rows = []
        for one in self.scored:
            value = auroc(one.scores, one.right)
            interval = self._interval([one])
            true = one.labels == "true"
            rows.append(
                {
                    "scorer": one.scorer,
                    **one.where,
                    "labels": one.labels,
                    "auroc": value,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "auroc_at_step": auroc(one.scores, one.right, strata=self.step),
                    "selectivity": value - np.mean(control[one.key]) if true and one.key in control else np.nan,
                    "brier": brier(one.scores, one.right),
                    "calibration_error": calibration_error(one.scores, one.right),
                    "n": len(one.scores),
                    "n_wrong": int((~one.right).sum()),
                }
            )
        return with_labels(pd.DataFrame(rows), self.facts)

    def reliability(self) -> pd.DataFrame:
        """`calibration` of every scorer whose scores are probabilities, on the true labels."""
        parts = [
            calibration(one.scores, one.right).assign(scorer=one.scorer, **one.where)
            for one in self.scored
            if one.labels == "true" and _are_probabilities(one.scores)
        ]
        return with_labels(pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(), self.facts)

    def difference(self, one: ScoredSteps, other: ScoredSteps) -> Interval:
        """95% interval of the AUROC of `one` less that of `other`, the same problems redrawn for both."""
        return self._interval([one, other])

    def figure(self) -> go.Figure:
        """AUROC of each scorer beside its control, with intervals."""
        return verification_figure(self.frame())

    def _interval(self, scored: Sequence[ScoredSteps]) -> Interval:
        """Of one AUROC, or of the first less the second. NaN for fewer than two problems, or where all is alike."""
        draws = []
        for weight in redrawn(self.problem, resamples=self.resamples, seed=self.seed):
            found = [_aurocs(one.scores, one.right, weight, None) for one in scored]
            draws.append(found[0] - found[1] if len(found) > 1 else found[0])
        values = np.concatenate(draws) if draws else np.array([])
        values = values[~np.isnan(values)]
        return Interval(*np.quantile(values, [0.025, 0.975]).tolist()) if len(values) else Interval(np.nan, np.nan)


def redrawn(
    problem: Int[np.ndarray, " step"], *, resamples: int = 1000, seed: int = 0
) -> Iterator[Float[np.ndarray, "draws step"]]:
    """How often each step counts where whole problems are drawn anew with replacement, some draws at a time.

    Nothing for fewer than two problems, which say nothing about spread.
    """
    number = np.unique(problem, return_inverse=True)[1]
    n, rng = int(number.max(initial=-1)) + 1, np.random.default_rng(seed)
    block = max(1, _AT_ONCE // max(len(number), 1))
    for done in range(0, resamples if n > 1 else 0, block):
        often = rng.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - done))
        yield often[:, number].astype(np.float64)


def _are_probabilities(scores: Float[np.ndarray, " n"]) -> bool:
    return bool(len(scores)) and bool(((scores >= 0) & (scores <= 1)).all())


def _aurocs(
    scores: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    weight: Float[np.ndarray, "draws n"],
    strata: Int[np.ndarray, " n"] | None,
) -> Float[np.ndarray, " draws"]:
    """Of several weightings of the rows at once. ValueError for NaN scores and for other numbers of rows."""
    if scores.shape != right.shape or np.isnan(scores).any():
        raise ValueError(
            f"{len(scores)} scores, {int(np.isnan(scores).sum())} of them NaN, for {len(right)} steps: give one each"
        )
    won, pairs = np.zeros((2, len(weight)))
    for one in (None,) if strata is None else np.unique(strata):
        rows = np.arange(len(scores)) if one is None else np.flatnonzero(strata == one)
        order = rows[np.argsort(scores[rows], kind="stable")]
        if not len(order):
            continue
        begins = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
        good, bad = (np.add.reduceat(weight[:, order] * side, begins, axis=1) for side in (right[order], ~right[order]))
        won += (good * (bad.cumsum(1) - bad / 2)).sum(1)
        pairs += good.sum(1) * bad.sum(1)
    found: Float[np.ndarray, " draws"] = np.divide(won, pairs, out=np.full(len(weight), np.nan), where=pairs > 0)
    return found
