"""Activation patching: which places and sites carry the difference between two runs.

One run (the recipient) is repeated with the activation of another run (the donor) written at one site and one place.

- denoise: clean activations into the corrupted run. Effect 1: this site alone restores the clean behavior (it is
  sufficient, given everything else of the corrupted run). effect = (patched - corrupted) / (clean - corrupted).
- noise: corrupted activations into the clean run. Effect 1: this site alone breaks the clean behavior (it is
  necessary, given everything else of the clean run). effect = (clean - patched) / (clean - corrupted).

In both, no patch is 0 and a full patch is 1, so both read (patched - recipient) / (donor - recipient). They are not
mirror images: where two sites are redundant denoising finds both and noising neither; where two are needed together
noising finds both and denoising neither. Effects do not add up to 1, may lie outside 0..1, and a site with an effect
need not hold the changed value itself: it may hold anything that the change made different.

Zhang & Nanda 2023, arXiv:2309.16042; Heimersheim & Nanda 2024, arXiv:2404.15255; Meng et al. 2022, arXiv:2202.05262.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from cotinterp.figures.labels import Place
from cotinterp.figures.patching import patching_figure, patching_scan_figure
from cotinterp.mechanism.activations import BUDGET, Budget
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import MetricName
from cotinterp.mechanism.model import HookedModel, is_causal
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.mechanism.patching.effects import ALL, EffectsResult, EffectsScan
from cotinterp.mechanism.patching.run_predictions import RunPredictions
from cotinterp.mechanism.patching.runs import (
    CONTROLS,
    DIRECTIONS,
    Cell,
    Changes,
    PatchingControls,
    Runs,
    cells_of,
    checked_metrics,
    prepared,
    rows_at_once,
    rows_in,
)
from cotinterp.mechanism.patching.sweep_hooks import sweep_block
from cotinterp.mechanism.patching.sweep_native import Sizes, native_sweep
from cotinterp.mechanism.sites import site_columns
from cotinterp.results import Result, output_folder, write_atomic
from cotinterp.results.result import write_pictures


def patch_sweep(
    model: HookedModel,
    contrast: Contrast,
    *,
    kinds: Sequence[str] = ("resid_pre", "attn_out", "mlp_out"),
    heads: bool | Sequence[str] = False,
    direction: str = "denoise",
    metrics: Sequence[str] = ("logit_diff", "probability", "accuracy"),
    controls: PatchingControls = CONTROLS,
    budget: Budget = BUDGET,
    labels: Mapping[str, str | int] | None = None,
) -> "PatchingResult":
    """Patch every place at every layer of each kind, one cell at a time.

    `heads`: z of every head too, or the kinds whose heads are patched one by one, as in ("z", "q"). The first of
    `metrics` is primary; all are measured on the same runs. `labels` (task, regime, run_seed) go in front of the table.

    A native model is patched straight from its weights: positions and blocks that a patch cannot reach are never
    computed, and the numbers are those of the hooks up to the rounding of float32. `why_not_native` names the models
    that are run through their hooks instead, as all are with `controls.by_hooks`. Each sweep compares two unpatched
    runs, and a self-patch of them, with the model's own; should they disagree (its forward pass was replaced), it warns
    and takes the hooks.

    Baselines of every sweep (`PatchingResult.baselines`): `self` (the recipient's own activations: exactly 0), `full`
    (the donor's: exactly 1) and `random_donor` (another example's whole first resid_pre: it breaks the run, and what is
    left need not be 0), at `resid_pre` of layer 0 at all positions; `random_site`, what a patch at a random site of the
    same kind does. Cells where donor and recipient agree bit for bit are 0 without a run.

    Where the contrast has a `reference`, effects are in units of the gap between the clean and the reference run, and
    `whole_change` is what this contrast's own change does: near 0 where the model does not care.

    ValueError: a model in train mode, unknown kinds, directions or metrics, no pair with a gap, a budget in which no
    example fits, or a sweep in which nothing changed anything (with a reference, or without `controls.require_gap`,
    that is an answer).
    """
    names = checked_metrics(model, direction, metrics)
    contrast = prepared(model, contrast, require_gap=controls.require_gap)
    cells = cells_of(model, contrast, kinds, heads)
    measure = None if controls.by_hooks else _from_weights(model, contrast, cells, names, budget)
    rows, measure_block = measure or _through_hooks(model, contrast, cells, names, budget)
    blocks = Runs.blocks(contrast, rows, direction=direction, seed=controls.seed, causal=is_causal(model))
    result = PatchingResult(
        cells=cells,
        measured=Changes.joined([measure_block(runs, controls.unrelated_donor) for runs in blocks]),
        addresses={place: contrast.address(place) for place in contrast.places},
        direction=direction,
        pair=contrast.pair + (" (unrelated donor)" if controls.unrelated_donor else ""),
        labels=dict(labels or {}),
        seed=controls.seed,
    )
    result.check(require_gap=controls.require_gap)
    return result


# The examples of a block, and what measures one; the flag says whether donors are unrelated.
_Measure = tuple[int, Callable[[Runs, bool], Changes]]


def _from_weights(
    model: HookedModel, contrast: Contrast, cells: Sequence[Cell], names: Sequence[MetricName], budget: Budget
) -> _Measure | None:
    """The sweep of a native model; None for every other, for half precision, and for sites that it does not have."""
    parts = exact_parts(model, contrast.clean)
    if parts is None or any(c.site.kind == "mlp_out" and parts.blocks[c.site.layer].mlp is None for c in cells):
        return None
    if budget.batch_size is not None:
        rows_at_once(model, contrast, budget.batch_size)
    sizes = Sizes.of(parts, contrast.clean.shape[1], budget)

    def measure(runs: Runs, unrelated_donor: bool) -> Changes:
        return native_sweep(parts, runs, cells, names, sizes, unrelated_donor=unrelated_donor)

    return sizes.examples_at_once(), measure


def _through_hooks(
    model: HookedModel, contrast: Contrast, cells: Sequence[Cell], names: Sequence[MetricName], budget: Budget
) -> _Measure:
    """The sweep of any model."""
    rows = rows_at_once(model, contrast, budget.batch_size)
    rows = min(rows, rows_in(model, contrast, {cell.site.whole for cell in cells}, budget.bytes))

    def measure(runs: Runs, unrelated_donor: bool) -> Changes:
        stack = max(1, rows // len(runs))
        return sweep_block(model, runs, cells, names, stack=stack, unrelated_donor=unrelated_donor)

    return rows, measure


@dataclass(frozen=True, eq=False, kw_only=True)
class CellsResult(EffectsResult):
    """Effects of cells: what a sweep over sites and places and its estimate from gradients have in common."""

    cells: tuple[Cell, ...]

    @property
    def names(self) -> list[tuple[str, str]]:
        """(site, place) of each cell, as in ("L1H3.z", "total 2")."""
        return [(cell.site.label, cell.place) for cell in self.cells]

    def columns(self, i: int) -> dict[str, Any]:
        """Site and place of a cell."""
        role, step, _ = self.addresses[self.cells[i].place]
        return {**site_columns(self.cells[i].site), "role": role, "step": step}

    def baseline_columns(self, name: str) -> dict[str, Any]:
        """The baseline's name as that of a site, at all places."""
        return {**site_columns(name), "role": ALL.role, "step": ALL.step}

    @property
    def symbols(self) -> dict[Place, str]:
        """What stands at each place of the first example."""
        return {(str(role), step): symbol for role, step, symbol in self.addresses.values() if symbol}

    def scan_figure(self, scanned: pd.DataFrame) -> go.Figure:
        """Effects of the flagged cells, sites by places."""
        return patching_scan_figure(scanned, symbols=self.symbols)


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchingResult(CellsResult):
    """Normalized effects of every cell (site and place). Signs and limits: see this module.

    `baselines` has one more for each kind of site, `random_site KIND` (`random_site z head` where heads are patched one
    by one): what a patch at a random site of the kind does. In each example it is the mean over the kind's live cells,
    at which donor and recipient differ; the others are 0 by identity and would make the baseline small by construction.
    The mean is what drawing one cell again and again comes to, without the chance of the draw.
    """

    def check(self, *, require_gap: bool = True) -> None:
        """As every result; and with a gap of the pairs' own, some patch must have changed the primary metric."""
        super().check(require_gap=require_gap)
        primary = self.metrics[0]
        wants_change = require_gap and "whole_change" not in self.measured.baselines
        if wants_change and not np.nan_to_num(self.measured.changes[primary]).any():
            raise ValueError(
                f"{int(self.measured.ran.sum())} patches were written and none changed {primary} in any example: the "
                "model does not use what it holds there, or its hooks do not act on its forward pass."
            )

    def detail(self) -> pd.DataFrame:
        """`frame` with two more columns: pairs `dropped` for want of a gap, and in how many the cell was `live`.

        Live: donor and recipient differ there, so that a patch had anything to write. For `random_site` rows it is the
        number of cells drawn from (with very few, the row is those cells' own effect); missing for other baselines.
        """
        counts: list[tuple[int, int | None]] = []
        drawn, live = self._random_sites(), self._live
        for metric in self.metrics:
            effects, baselines = self.effects(metric), self.baselines(metric)
            counts += [(one.dropped, len(drawn[name]) if name in drawn else None) for name, one in baselines.items()]
            counts += [(effects.dropped, int(cell.sum())) for cell in live]
        dropped, alive = zip(*counts, strict=True)
        return self.frame().assign(dropped=dropped, live=pd.array(alive, dtype="Int64"))

    def figure(self, metric: str | None = None, *, heads: bool | None = None) -> go.Figure:
        """Layers by places, one panel per kind; with `heads`, head by place. By default heads only where that is all.

        Red is negative, blue positive, white 0; the places carry the symbols of the first example.
        """
        return patching_figure(self.frame(), self.measured_metric(metric), heads=heads, symbols=self.symbols)

    def save(self, directory: Path | str, name: str, *, formats: Sequence[str] = ()) -> list[Path]:
        """`Result.save`, and `figures/<name>_heads.html` where the sweep has heads besides other sites."""
        paths = super().save(directory, name, formats=formats)
        if self._has(heads=True) and self._has(heads=False):
            paths += write_pictures(self.figure(heads=True), f"{name}_heads", Path(directory) / "figures", formats)
        return paths

    def baseline_changes(self, metric: MetricName) -> dict[str, Float[np.ndarray, " batch"]]:
        """Those that were measured, and by kind of site the mean change of the live cells.

        NaN for an example without a live cell, or with a live cell that was not measured (no unrelated donor).
        """
        found = super().baseline_changes(metric)
        for name, members in self._random_sites().items():
            live, changes = self._live[members], self.measured.changes[metric][members]
            count = live.sum(axis=0)
            total = np.where(live, changes, 0.0).sum(axis=0)
            found[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return found

    def _random_sites(self) -> dict[str, list[int]]:
        """By the name of the baseline, the cells that are live in any example."""
        kinds: dict[str, list[int]] = {}
        for i, cell in enumerate(self.cells):
            name = f"random_site {cell.site.kind}" + " head" * (cell.site.head is not None)
            members = kinds.setdefault(name, [])
            if self._live[i].any():
                members.append(i)
        return kinds

    @property
    def _live(self) -> Bool[np.ndarray, "cells batch"]:
        assert self.measured.live is not None
        return self.measured.live

    def _has(self, *, heads: bool) -> bool:
        return any((cell.site.head is not None) == heads for cell in self.cells)


@dataclass(frozen=True, eq=False)
class PatchedBothWays(Result):
    """A denoising and a noising sweep of the same cells on the same pairs.

    Effects near 1 in both: the site carries the difference alone. High only in denoising: it is enough, and others
    would do as well (redundancy). High only in noising: it is needed, and not enough (it works with others).
    """

    denoise: PatchingResult
    noise: PatchingResult

    def frame(self) -> pd.DataFrame:
        """tables/patching.csv: the rows of both sweeps, denoising first."""
        return pd.concat([self.denoise.frame(), self.noise.frame()], ignore_index=True)

    def side_by_side(self) -> pd.DataFrame:
        """One row per metric and cell (baselines first): effect, interval and n of each direction.

        `difference` is denoise - noise: above 0 more sufficient than necessary, below 0 the other way round.
        """
        denoise, noise = self.denoise.frame().drop(columns="direction"), self.noise.frame()
        values = ["effect", "ci_low", "ci_high", "n"]
        table = denoise.rename(columns={name: f"denoise_{name}" for name in values})
        for name in values:
            table[f"noise_{name}"] = noise[name]
        return table.assign(difference=table["denoise_effect"] - table["noise_effect"])

    def runs(self) -> RunPredictions:
        """What the runs put first, before any patch: the same for both directions."""
        return self.denoise.runs()

    def scan(self, metric: str | None = None, **options: Any) -> EffectsScan:
        """`PatchingResult.scan` of both. Each direction is corrected by itself: they answer different questions."""
        denoise, noise = (sweep.scan(metric, **options) for sweep in (self.denoise, self.noise))
        return replace(denoise, sweeps=denoise.sweeps + noise.sweeps)

    def detail(self) -> pd.DataFrame:
        """`PatchingResult.detail` of both."""
        return pd.concat([self.denoise.detail(), self.noise.detail()], ignore_index=True)

    def figure(self, metric: str | None = None, *, heads: bool | None = None) -> go.Figure:
        """Both directions side by side, on one color scale (`PatchingResult.figure`)."""
        return patching_figure(self.frame(), metric, heads=heads, symbols=self.denoise.symbols)

    def save(self, directory: Path | str, name: str, *, formats: Sequence[str] = ()) -> list[Path]:
        """`Result.save`, and the two directions side by side in `tables/<name>_directions.csv`."""
        paths = super().save(directory, name, formats=formats)
        table = self.side_by_side().to_csv(index=False, lineterminator="\n")
        return [*paths, write_atomic(output_folder(Path(directory) / "tables") / f"{name}_directions.csv", table)]


def patch_both_ways(model: HookedModel, contrast: Contrast, **options: Any) -> PatchedBothWays:
    """`patch_sweep` in both directions, with the same options; see there."""
    denoise, noise = (patch_sweep(model, contrast, direction=direction, **options) for direction in DIRECTIONS)
    return PatchedBothWays(denoise, noise)
