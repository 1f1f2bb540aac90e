"""What patching found: effects by site and place with their baselines, and the scan over all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from cotinterp.figures.labels import Place
from cotinterp.figures.patching import patching_figure, patching_scan_figure
from cotinterp.mechanism.contrast import Address
from cotinterp.mechanism.metrics import (
    Effects,
    MetricName,
    NoGapError,
    has_gap,
    kept_pairs,
    metric_name,
    missing_effects,
    normalized_effects,
)
from cotinterp.mechanism.patching.blocks import FIRST, Cell, Measured
from cotinterp.mechanism.patching.run_predictions import RunPredictions
from cotinterp.results import Result, output_folder, with_labels, write_atomic
from cotinterp.results.multiplicity import sign_flip_p, simultaneous_half_width
from cotinterp.results.result import figure_page


def random_site(
    cells: Sequence[Cell], measured: Measured, metric: MetricName
) -> dict[str, Float[np.ndarray, " batch"]]:
    """By kind of site, what a cell drawn at random changes in each example: the mean over its live cells.

    Live are the cells at which donor and recipient differ in that example; the others are 0 by identity and would make
    the baseline small by construction. The mean is what drawing one cell of the kind again and again comes to, without
    the chance of the draw. Kinds whose heads are patched one by one are named `random_site z head`. NaN for an example
    without a live cell, or with a live cell that was not measured (no unrelated donor).
    """
    found = {}
    for name, members in live_cells(cells, measured).items():
        live, changes = measured.live[members], measured.changes[metric][members]
        count = live.sum(axis=0)
        total = np.where(live, changes, 0.0).sum(axis=0)
        found[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def live_cells(cells: Sequence[Cell], measured: Measured) -> dict[str, list[int]]:
    """By the name of the baseline, the indices of the cells that are live in any example."""
    kinds: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        members = kinds.setdefault(f"random_site {cell.site.kind}" + " head" * (cell.site.head is not None), [])
        if measured.live[i].any():
            members.append(i)
    return kinds


READINGS = {
    "denoise": "Denoising: {metric} restored by writing clean activations into the corrupted run "
    "(0: as corrupted, 1: as clean)",
    "noise": "Noising: {metric} lost by writing corrupted activations into the clean run "
    "(0: as clean, 1: as corrupted)",
}
SPOKEN: dict[str, str] = {"logit_diff": "logit difference", "kl": "KL divergence", "log_prob": "log probability"}
COLUMNS = ("pair", "direction", "site", "layer", "head", "role", "step", "metric", "effect", "ci_low", "ci_high", "n")
SCAN_COLUMNS = (*COLUMNS[:8], "family", *COLUMNS[8:11], "p_adjusted", "flagged", "n", "dropped", "told_apart")


TOLD_APART = 0.5
"""A scan explains a behavior: it flags nothing where the model's first prediction follows the change in fewer pairs."""


@dataclass(frozen=True, eq=False)
class PatchingResult(Result):
    """Normalized effects of every cell (site and place), per example until asked for the table.

    `measured` holds numerators and denominators by metric; the first metric is primary. `effects` aggregates them (see
    `normalized_effects` for what is dropped, the ratio and the interval). Signs and limits: see `mechanism.patching`.
    """

    cells: tuple[Cell, ...]
    measured: Measured
    addresses: Mapping[str, Address]
    direction: str
    pair: str
    labels: Mapping[str, str | int]
    seed: int = 0

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """Names of the metrics, the primary one first."""
        return tuple(self.measured.gaps)

    def checked(self, *, require_gap: bool = True) -> "PatchingResult":
        """This result. ValueError if it is one of nothing: donor and recipient agree at every place; or (unless told
        not to ask) there is no gap to normalize by; or no patch changed the primary metric. The last is an answer, and
        no error, where a reference defines the gap or no gap is asked for."""
        primary = self.metrics[0]
        if require_gap:
            kept_pairs(self.measured.changes[primary], self.measured.gaps[primary])
        if not self.measured.ran.any():
            raise ValueError(
                f"donor and recipient agree bit for bit at every place of the sweep ({list(self.addresses)}): what was "
                "changed lies at none of them, or after them all. Add the places that differ."
            )
        wants_change = require_gap and "whole_change" not in self.measured.baselines
        if wants_change and not np.nan_to_num(self.measured.changes[primary]).any():
            raise ValueError(
                f"{int(self.measured.ran.sum())} patches were written and none changed {primary} in any example: the "
                "model does not use what it holds there, or its hooks do not act on its forward pass."
            )
        return self

    def effects(self, metric: str | None = None) -> Effects:
        """Effect and interval of every cell, in the order of `cells`."""
        name = self._name(metric)
        return normalized_effects(self.measured.changes[name], self.measured.gaps[name], seed=self.seed)

    def baselines(self, metric: str | None = None) -> dict[str, Effects]:
        """By name, each an Effects of one cell:

        - `self`: the recipient's own activations, exactly 0. `full`: the whole gap, exactly 1.
        - `whole_change`, where a reference defines the gap: this pair's own change, all of it. 0 if it does not matter.
        - `random_donor`: another example's whole first layer. Missing (n = 0) where none has another one of its layout.
        - `random_site KIND`: what a patch at a random site of this kind does, by which a cell is to be judged: the mean
          over the cells of the sweep at which donor and recipient differ in that example. Cells that are 0 by identity
          are not in it, so it is not small by construction; it is what drawing a cell again and again would come to.
        """
        name, measured = self._name(metric), self.measured
        rows = {key: values[name] for key, values in measured.baselines.items()} | random_site(
            self.cells, measured, name
        )
        found = {}
        for key, values in rows.items():
            some = bool(np.isfinite(values)[has_gap(measured.gaps[name])].any())
            change, gap = values[None], measured.gaps[name]
            found[key] = normalized_effects(change, gap, seed=self.seed) if some else missing_effects(1, len(gap))
        return found

    def runs(self) -> RunPredictions:
        """What the clean, the corrupted and the reference run put first, before any patch."""
        return RunPredictions(self.measured.predicted, self.pair, self.labels)

    def scan(
        self,
        metric: str | None = None,
        *,
        headline: Sequence[tuple[str, str]] = (),
        level: float = 0.95,
        min_told_apart: float = TOLD_APART,
    ) -> pd.DataFrame:
        """One row per cell: effect, simultaneous interval, adjusted p-value, and whether the cell is flagged.

        A cell is flagged where its `p_adjusted` is at most 1 - level and the model tells the runs of the unit apart in
        at least `min_told_apart` of the pairs (`RunPredictions.told_apart`): with nothing to explain, nothing explains
        it. The chance of one false flag in the whole family is then at most 1 - level. `headline` names cells declared
        before looking, as (site, place) like ("L1H3.z", "total 2"); they are a family of their own, the others the
        second. With fewer than 6 pairs nothing can be flagged at 95%. What is tested: `scan.scan_effects`.

        KeyError for headline cells that are not in the sweep.
        """
        name, index = self._name(metric), {(cell.site.label, cell.place): i for i, cell in enumerate(self.cells)}
        unknown = [cell for cell in headline if cell not in index]
        if unknown:
            raise KeyError(f"headline cells {unknown} are not in the sweep; its cells look like {list(index)[:3]}")
        declared = {index[cell] for cell in headline}
        families = [sorted(declared), [i for i in range(len(self.cells)) if i not in declared]]
        change, gap, told = self.measured.changes[name], self.measured.gaps[name], self.runs().told_apart
        try:
            found = scan_effects(change, gap, [f for f in families if f], level=level, seed=self.seed)
        except NoGapError:
            nothing = np.full(len(self.cells), np.nan)
            found = Scan(nothing, nothing, nothing, nothing, 0, len(gap))
        flagged = (found.p <= 1 - level + 1e-12) & (told >= min_told_apart)
        rows = [
            {
                **self._address(i, name),
                "family": "headline" if i in declared else "scan",
                **{"effect": found.effect[i], "ci_low": found.ci_low[i], "ci_high": found.ci_high[i]},
                **{"p_adjusted": found.p[i], "flagged": bool(flagged[i])},
                **{"n": found.n, "dropped": found.dropped, "told_apart": told},
            }
            for i in range(len(self.cells))
        ]
        return self._labeled(rows, SCAN_COLUMNS)

    def frame(self) -> pd.DataFrame:
        """tables/patching.csv: one row per metric and cell, the baselines first.

        `n` is the number of pairs with a gap in that metric; where it has none to normalize by (accuracy of a model
        that is never right) the effects are missing and n is 0. `head` is missing for sites without heads.
        """
        return self._labeled([row for metric in self.metrics for row in self._rows(metric)], COLUMNS)

    def detail(self) -> pd.DataFrame:
        """`frame` with two more columns: pairs `dropped` for want of a gap, and in how many the cell was `live`.

        Live: donor and recipient differ there, so that a patch had anything to write. For `random_site` rows it is the
        number of cells drawn from (with very few, the row is those cells' own effect); missing for other baselines.
        """
        rows = [row for metric in self.metrics for row in self._rows(metric)]
        return self._labeled(rows, (*COLUMNS, "dropped", "live")).astype({"live": "Int64"})

    def figure(self, metric: str | None = None, *, heads: bool | None = None) -> go.Figure:
        """Layers by places, one panel per kind; with `heads`, head by place. By default heads only where that is all.

        Red is negative, blue positive, white 0; the places carry the symbols of the first example.
        """
        return patching_figure(self.frame(), self._name(metric), heads=heads, symbols=self.symbols)

    @property
    def symbols(self) -> dict[Place, str]:
        """What stands at each place of the first example."""
        return {Place(str(role), step): symbol for role, step, symbol in self.addresses.values() if symbol}

    def save(self, directory: Path | str, name: str) -> list[Path]:
        """`Result.save`, and `figures/<name>_heads.html` where the sweep has heads besides other sites."""
        paths = super().save(directory, name)
        if self._has(heads=True) and self._has(heads=False):
            page = figure_page(self.figure(heads=True), f"{name}_heads")
            paths.append(write_atomic(output_folder(Path(directory) / "figures") / f"{name}_heads.html", page))
        return paths

    def _rows(self, metric: MetricName) -> Iterator[dict[str, Any]]:
        shared = {"pair": self.pair, "direction": self.direction, "metric": metric}
        effects, baselines = self._effects_or_missing(metric)
        drawn = live_cells(self.cells, self.measured)
        for key, baseline in baselines.items():
            address = {"site": key, "layer": FIRST.layer, "head": None, "role": "all", "step": -1}
            yield {**shared, **address, **_cell(baseline, 0), "live": len(drawn[key]) if key in drawn else None}
        for i in range(len(self.cells)):
            yield {**self._address(i, metric), **_cell(effects, i), "live": int(self.measured.live[i].sum())}

    def _address(self, i: int, metric: MetricName) -> dict[str, Any]:
        site, (role, step, _) = self.cells[i].site, self.addresses[self.cells[i].place]
        sweep = {"pair": self.pair, "direction": self.direction, "metric": metric}
        return {**sweep, "site": site.label, "layer": site.layer, "head": site.head, "role": role, "step": step}

    def _labeled(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
        table = pd.DataFrame(rows).astype({"head": "Int64"})[list(columns)]
        return with_labels(table, {"task": "", "regime": "", "run_seed": "", **self.labels})

    @cached_property
    def _known(self) -> dict[MetricName, tuple[Effects, dict[str, Effects]]]:
        """What `_effects_or_missing` found: a table and its pictures ask for it again and again."""
        return {}

    def _effects_or_missing(self, metric: MetricName) -> tuple[Effects, dict[str, Effects]]:
        if metric not in self._known:
            try:
                self._known[metric] = self.effects(metric), self.baselines(metric)
            except NoGapError:
                pairs = len(self.measured.gaps[metric])
                names = [*self.measured.baselines, *random_site(self.cells, self.measured, metric)]
                missing = dict.fromkeys(names, missing_effects(1, pairs))
                self._known[metric] = missing_effects(len(self.cells), pairs), missing
        return self._known[metric]

    def _name(self, metric: str | None) -> MetricName:
        name = self.metrics[0] if metric is None else metric_name(metric)
        if name not in self.metrics:
            raise ValueError(f"{name} was not measured in this sweep; it has {list(self.metrics)}.")
        return name

    def _has(self, *, heads: bool) -> bool:
        return any((cell.site.head is not None) == heads for cell in self.cells)


@dataclass(frozen=True, eq=False)
class PatchingScan(Result):
    """`PatchingResult.scan` with its picture. A flag says that an effect is there, not that it is large."""

    patching: PatchingResult

    @cached_property
    def _scan(self) -> pd.DataFrame:
        return self.patching.scan()

    def frame(self) -> pd.DataFrame:
        """One row for each cell: effect, simultaneous interval, adjusted p-value, flag (see `PatchingResult.scan`)."""
        return self._scan.copy()

    def figure(self) -> go.Figure:
        """Effects of the flagged cells; gray where a cell is not told from nothing."""
        return patching_scan_figure(self.frame(), symbols=self.patching.symbols)


def _cell(effects: Effects, i: int) -> dict[str, Any]:
    """The columns of one effect."""
    interval = {"ci_low": effects.ci_low[i], "ci_high": effects.ci_high[i]}
    return {"effect": effects.effect[i], **interval, "n": effects.n, "dropped": effects.dropped}


# Standard errors that the mean gap must be away from 0 for a ratio to it to have an interval.
_SOUND_GAP = 1.96


@dataclass(frozen=True, eq=False)
class Scan:
    """Effect, simultaneous interval and adjusted p-value of every cell; `n` pairs were used, `dropped` had no gap."""

    effect: Float[np.ndarray, " cells"]
    ci_low: Float[np.ndarray, " cells"]
    ci_high: Float[np.ndarray, " cells"]
    p: Float[np.ndarray, " cells"]
    n: int
    dropped: int


def scan_effects(
    change: Float[np.ndarray, "cells batch"],
    gap: Float[np.ndarray, " batch"],
    families: Sequence[Sequence[int]] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    n_resamples: int = 2000,
) -> Scan:
    """mean(change) / mean(gap) of every cell, corrected within each family of cells (by default all are one).

    p: "the mean change of this cell is 0", by flipping the signs of whole examples. For the logit difference that null
    is exact: exchanging answer and foil of an example negates its change in every cell, and its gap; where a patch has
    nothing to do with which of the two tokens is right, either labeling is as likely, and so is every pattern of signs.
    Pairs are dropped by the size of their gap, which no flip changes. Other metrics are not negated by the exchange:
    there the test assumes that a change of no meaning is symmetric about 0. The null is about examples of *one* model:
    a model with random weights does have effects, of no meaning, that enough examples bring out (see `TOLD_APART`).

    Intervals: bootstrap of the largest studentized deviation of the ratio, linearized at its estimate (each example
    contributes (change - effect * gap) / mean gap), so that a cell that closes the same share of every gap has no
    width. NaN where the mean gap is not clearly away from 0, and below two pairs. They and the p-values are two
    different approximations and may disagree at the edge.

    NoGapError where there is nothing to normalize by.
    """
    keep = kept_pairs(change, gap)
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
    return Scan(effect, effect - half, effect + half, p, n, len(keep) - n)
