"""Normalized effects of everything that a sweep tried: the base of every result of patching, and the scan over it."""

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from cotinterp.mechanism.contrast import Address
from cotinterp.mechanism.metrics import (
    EPS,
    Effects,
    MetricName,
    NoGapError,
    kept_pairs,
    metric_name,
    normalized_effects,
)
from cotinterp.mechanism.patching.run_predictions import RunPredictions
from cotinterp.mechanism.patching.runs import Changes
from cotinterp.results import Result, with_labels
from cotinterp.results.multiplicity import sign_flip_p, simultaneous_half_width

ALL = Address("all")
"""The place of what is not restricted to one."""

LEAST_GAP: Mapping[MetricName, float] = {
    **dict.fromkeys(("logit_diff", "correct_logit", "wrong_logit", "log_prob"), 0.01),
    **dict.fromkeys(("probability", "accuracy", "kl"), EPS),
}
"""Smallest mean gap that effects are shares of, in the metric's unit. A hundredth of a nat: the odds of answer against
foil change by one in a hundred, and float16 rounds logits of order 10 by as much. Elsewhere what one pair must have."""

LEAST_GAP_SPREAD = 0.5
"""The same in standard deviations of the gap over pairs. Below, the gap has the other sign in three pairs of ten, and a
ratio of means is about which pairs were drawn."""

LEAST_EFFECT = 0.05
"""Smallest effect that a scan flags: a twentieth of the change, the smallest number that figures print. With enough
pairs any effect is told from 0; a smaller one explains nothing."""

MIN_DISTINGUISHED = 0.5
"""A scan explains a behavior: it flags nothing where the model's first prediction follows the change in fewer pairs."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EffectsResult(Result):
    """Normalized effects of every cell or path of a sweep, per example until asked for the table.

    `measured` holds numerators and denominators by metric, a row for each cell or path; the first metric is primary.
    `effects` aggregates them (see `normalized_effects` for what is dropped, the ratio and the interval), `scan` looks
    at all of them together.
    """

    measured: Changes
    addresses: Mapping[str, Address]
    direction: str
    pair: str
    labels: Mapping[str, str | int]
    seed: int = 0

    @property
    @abstractmethod
    def names(self) -> Sequence[Hashable]:
        """What each row is called, in the order of `measured`: for a cell (site, place), for a path the path."""

    @abstractmethod
    def columns(self, i: int) -> dict[str, Any]:
        """What tables say of row `i`."""

    @abstractmethod
    def baseline_columns(self, name: str) -> dict[str, Any]:
        """What tables say of a baseline, in the same columns."""

    @abstractmethod
    def scan_figure(self, scanned: pd.DataFrame) -> go.Figure:
        """The picture of a scan over these rows. `scanned`: its table, of one sweep or several of the same rows."""

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """Names of the metrics, the primary one first."""
        return tuple(self.measured.gaps)

    def measured_metric(self, name: str | None) -> MetricName:
        """The metric of this name, the primary one for None. ValueError where it is unknown or was not measured."""
        found = self.metrics[0] if name is None else metric_name(name)
        if found not in self.metrics:
            raise ValueError(f"{found} was not measured in this sweep; it has {list(self.metrics)}.")
        return found

    def check(self, *, require_gap: bool = True) -> None:
        """ValueError if this is a result of nothing: donor and recipient agree at everything that was tried, or (unless
        told not to ask) there is no gap to normalize by."""
        if require_gap:
            kept_pairs(self.measured.changes[self.metrics[0]], self.measured.gaps[self.metrics[0]])
        if not self.measured.ran.any():
            raise ValueError(self._nothing_differs())

    def effects(self, metric: str | None = None) -> Effects:
        """Effect of every row with the interval of that row alone; missing (n = 0) where there is no gap."""
        return self._found(self.measured_metric(metric))[0]

    def baselines(self, metric: str | None = None) -> dict[str, Effects]:
        """By name, each an Effects of one row, by which the others are to be judged:

        - `self`: the recipient's own activations, exactly 0. `full`: the whole gap, exactly 1 (in attribution patching
          its estimate).
        - `whole_change`, where a reference defines the gap: this pair's own change, all of it. 0 if it does not matter.
        - `random_donor`: another example's whole first layer. Missing (n = 0) where none has another one of its layout.
        - `random_site KIND`, of cells that were patched: see `PatchingResult`.
        """
        return self._found(self.measured_metric(metric))[1]

    def no_effects(self, metric: str | None = None) -> str:
        """Why there are no effects in this metric (see `LEAST_GAP`); empty where there are."""
        name = self.measured_metric(metric)
        return wanting(name, self.measured.changes[name], self.measured.gaps[name])

    def runs(self) -> RunPredictions:
        """What the clean, the corrupted and the reference run put first, before any patch."""
        return RunPredictions(self.measured.predicted, self.pair, self.labels)

    def scan(
        self,
        metric: str | None = None,
        *,
        headline: Sequence[Hashable] = (),
        level: float = 0.95,
        min_distinguished: float = MIN_DISTINGUISHED,
        least_effect: float = LEAST_EFFECT,
    ) -> "EffectsScan":
        """Everything that was tried, looked at together: simultaneous intervals, adjusted p-values and flags.

        `headline` names what was declared before looking (cells as ("L1H3.z", "total 2"), paths as they are): a family
        of its own, the others are the second. KeyError for names that are not in the sweep.
        """
        index = {name: i for i, name in enumerate(self.names)}
        unknown = [name for name in headline if name not in index]
        if unknown:
            raise KeyError(f"{unknown} are not in the sweep, where names look like {list(index)[:3]}")
        declared = frozenset(index[name] for name in headline)
        return EffectsScan((self,), self.measured_metric(metric), declared, level, min_distinguished, least_effect)

    def frame(self) -> pd.DataFrame:
        """One row per metric and cell or path, the baselines first.

        `n` is the number of pairs with a gap in that metric; where it has none to normalize by (accuracy of a model
        that is never right, or a gap below `LEAST_GAP` or `LEAST_GAP_SPREAD`) the effects are missing, n is 0, and
        `reason` says why. Layers and heads are -1 where there are none.
        """
        return self.labeled([row for metric in self.metrics for row in self.rows(metric)])

    def labeled(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """A table of these rows, with the labels in front."""
        return with_labels(pd.DataFrame(rows), {"task": "", "regime": "", "run_seed": "", **self.labels})

    def sweep_columns(self, metric: MetricName, i: int) -> dict[str, Any]:
        """Everything that tables say of row `i` but numbers."""
        return {"pair": self.pair, "direction": self.direction, **self.columns(i), "metric": metric}

    def rows(self, metric: MetricName) -> Iterator[dict[str, Any]]:
        """The rows of the table for one metric, the baselines first."""
        sweep = {"pair": self.pair, "direction": self.direction}
        effects, baselines = self._found(metric)
        reason = self.no_effects(metric)
        changes = self.baseline_changes(metric)
        for name, baseline in baselines.items():
            why = reason or wanting(metric, changes[name][None], self.measured.gaps[metric])
            yield {**sweep, **self.baseline_columns(name), "metric": metric, **baseline.columns(0), "reason": why}
        for i in range(len(effects.effect)):
            yield {**self.sweep_columns(metric, i), **effects.columns(i), "reason": reason}

    @cached_property
    def _known(self) -> dict[MetricName, tuple[Effects, dict[str, Effects]]]:
        """What `_found` found: a table and its pictures ask for it again and again."""
        return {}

    def _found(self, metric: MetricName) -> tuple[Effects, dict[str, Effects]]:
        """Effects and baselines. Where the sweep has no gap, the baselines have none."""
        if metric not in self._known:
            effects = self._normalized(metric, self.measured.changes[metric])
            missing = self.no_effects(metric) != ""
            rows = self.baseline_changes(metric)
            baselines = {name: self._normalized(metric, row[None], missing=missing) for name, row in rows.items()}
            self._known[metric] = effects, baselines
        return self._known[metric]

    def _normalized(
        self, metric: MetricName, change: Float[np.ndarray, "rows batch"], *, missing: bool = False
    ) -> Effects:
        gap = self.measured.gaps[metric]
        if missing or wanting(metric, change, gap):
            gap = np.zeros_like(gap)
        return normalized_effects(change, gap, seed=self.seed)

    def baseline_changes(self, metric: MetricName) -> dict[str, Float[np.ndarray, " batch"]]:
        """What each baseline changes in each example."""
        return {name: changes[metric] for name, changes in self.measured.baselines.items()}

    def _nothing_differs(self) -> str:
        return (
            f"donor and recipient agree bit for bit at every place of the sweep ({list(self.addresses)}): what was "
            "changed lies at none of them, or after them all. Add the places that differ."
        )


@dataclass(frozen=True, eq=False)
class EffectsScan(Result):
    """Which effects of a sweep are told from nothing when all of them are looked at. A flag does not say "large".

    The largest of a hundred effects is large by chance. Each interval holds for all rows at once, and each p-value is
    adjusted for their number, given how the sweep's own effects depend on one another (max-statistic: Westfall & Young
    1993; Romano & Wolf 2005).

    A row is flagged where its `p_adjusted` is at most 1 - level, its effect at least `least_effect` in size, and the
    model distinguishes the runs of the unit in at least `min_distinguished` of the pairs
    (`RunPredictions.distinguished`): with nothing to explain, nothing explains it. `reason` says of each other row what
    was wanting. The chance of one false flag in a whole family is then at most 1 - level. `headline`, the rows declared
    before looking, are a family of their own, the others the second: flags in one say nothing about the other. With
    fewer than 6 pairs nothing can be flagged at 95%. Several sweeps are corrected each by itself. What is tested:
    `scan_effects`.
    """

    sweeps: tuple[EffectsResult, ...]
    metric: MetricName
    headline: frozenset[int] = frozenset()
    level: float = 0.95
    min_distinguished: float = MIN_DISTINGUISHED
    least_effect: float = LEAST_EFFECT

    def frame(self) -> pd.DataFrame:
        """One row for each cell or path: effect, simultaneous interval, adjusted p-value, flagged or why not."""
        return pd.concat([self._frame_of(sweep) for sweep in self.sweeps], ignore_index=True)

    def figure(self) -> go.Figure:
        """Effects of what is flagged; gray where it is not told from nothing."""
        return self.sweeps[0].scan_figure(self.frame())

    @cached_property
    def found(self) -> tuple["SimultaneousEffects", ...]:
        """The numbers of each sweep, in the order of its rows."""
        return tuple(self._numbers(sweep) for sweep in self.sweeps)

    def _numbers(self, sweep: EffectsResult) -> "SimultaneousEffects":
        change, gap = sweep.measured.changes[self.metric], sweep.measured.gaps[self.metric]
        others = [i for i in range(len(change)) if i not in self.headline]
        families = [family for family in (sorted(self.headline), others) if family]
        if sweep.no_effects(self.metric):
            gap = np.zeros_like(gap)
        return scan_effects(change, gap, families, level=self.level, seed=sweep.seed)

    def _frame_of(self, sweep: EffectsResult) -> pd.DataFrame:
        found, distinguished = self.found[self.sweeps.index(sweep)], sweep.runs().distinguished
        reasons = self._reasons(found, distinguished, sweep.no_effects(self.metric))
        rows = [
            {
                **sweep.sweep_columns(self.metric, i),
                "family": "headline" if i in self.headline else "scan",
                **{"effect": found.effect[i], "ci_low": found.ci_low[i], "ci_high": found.ci_high[i]},
                **{"p_adjusted": found.p[i], "flagged": not reasons[i], "reason": reasons[i]},
                **{"n": found.n, "dropped": found.dropped, "distinguished": distinguished},
            }
            for i in range(len(found.effect))
        ]
        return sweep.labeled(rows)

    def _reasons(self, found: "SimultaneousEffects", distinguished: float, no_effects: str) -> list[str]:
        """Why each row is not flagged; empty where it is."""
        alpha = 1 - self.level + 1e-12
        least = next(n for n in range(2, 64) if 2.0 ** (1 - n) <= alpha)
        of_all = no_effects
        if not of_all and distinguished < self.min_distinguished:
            of_all = (
                f"the first prediction follows the change in {distinguished:.0%} of the pairs, "
                f"{self.min_distinguished:.0%} are asked for"
            )
        elif not of_all and found.n < least:
            of_all = f"{found.n} pairs: with fewer than {least} nothing can be flagged"
        return [
            of_all
            or ("" if p <= alpha else "not told from 0")
            or ("" if abs(effect) >= self.least_effect else f"smaller than {self.least_effect:g}")
            for p, effect in zip(found.p, found.effect, strict=True)
        ]


def wanting(metric: MetricName, change: Float[np.ndarray, "rows batch"], gap: Float[np.ndarray, " batch"]) -> str:
    """Why changes cannot be given as shares of this gap; empty where they can.

    There must be a gap (`kept_pairs`), on average at least `LEAST_GAP` of the metric and `LEAST_GAP_SPREAD` standard
    deviations over pairs: below, normalized effects are noise over noise.
    """
    if len(change) and not np.isfinite(change).all(axis=0).any():
        return f"measured in none of {len(gap)} pairs: no other example of their layout, or nothing to draw from."
    try:
        kept = gap[kept_pairs(change, gap)]
    except NoGapError as error:
        return str(error)
    mean, spread = float(abs(kept.mean())), float(kept.std(ddof=1)) if len(kept) > 1 else 0.0
    told = f"the mean gap between the runs is {mean:.2g} in {len(kept)} pairs ({metric})"
    if mean < LEAST_GAP[metric]:
        return f"{told}, below {LEAST_GAP[metric]:g}: the model hardly tells them apart, and effects would be noise."
    if mean < LEAST_GAP_SPREAD * spread:
        return f"{told}, where it varies by {spread:.2g} over pairs: effects would be about which pairs were drawn."
    return ""


# Standard errors that the mean gap must be away from 0 for a ratio to it to have an interval.
_SOUND_GAP = 1.96


@dataclass(frozen=True, eq=False)
class SimultaneousEffects(Effects):
    """`Effects` whose intervals hold for a whole family of cells, with a p-value adjusted for the family."""

    p: Float[np.ndarray, " cells"]


def scan_effects(
    change: Float[np.ndarray, "cells batch"],
    gap: Float[np.ndarray, " batch"],
    families: Sequence[Sequence[int]] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    n_resamples: int = 2000,
) -> SimultaneousEffects:
    """mean(change) / mean(gap) of every cell, corrected within each family of cells (by default all are one).

    p: "the mean change of this cell is 0", by flipping the signs of whole examples. For the logit difference that null
    is exact: exchanging answer and foil of an example negates its change in every cell, and its gap; where a patch has
    nothing to do with which of the two tokens is right, either labeling is as likely, and so is every pattern of signs.
    Pairs are dropped by the size of their gap, which no flip changes. Other metrics are not negated by the exchange:
    there the test assumes that a change of no meaning is symmetric about 0. The null is about examples of *one* model:
    a model with random weights does have effects, of no meaning, that enough examples bring out (see
    `MIN_DISTINGUISHED`).

    Intervals: bootstrap of the largest studentized deviation of the ratio, linearized at its estimate (each example
    contributes (change - effect * gap) / mean gap), so that a cell that closes the same share of every gap has no
    width. NaN where the mean gap is not clearly away from 0, and below two pairs. They and the p-values are two
    different approximations and may disagree at the edge. All is missing (n = 0) where there is no gap.
    """
    try:
        keep = kept_pairs(change, gap)
    except NoGapError:
        nothing = np.full(len(change), np.nan)
        return SimultaneousEffects(nothing, nothing, nothing, 0, len(gap), nothing)
    change, gap = change[:, keep], gap[keep]
    n = len(gap)
    effect = np.array([row.sum() / gap.sum() for row in change], dtype=np.float64) + 0.0
    deviation = (change - effect[:, None] * gap) / gap.mean()
    p, half = (np.full(len(change), np.nan) for _ in range(2))
    sound = n > 1 and abs(gap.mean()) >= _SOUND_GAP * gap.std(ddof=1) / np.sqrt(n)
    for family in [range(len(change))] if families is None else families:
        cells = np.array(family, dtype=np.int64)
        p[cells] = sign_flip_p(change[cells], n_resamples=n_resamples, seed=seed)
        if sound:
            half[cells] = simultaneous_half_width(deviation[cells], level=level, n_resamples=n_resamples, seed=seed)
    return SimultaneousEffects(effect, effect - half, effect + half, n, len(keep) - n, p)
