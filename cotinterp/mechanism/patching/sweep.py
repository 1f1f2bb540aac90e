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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures.patching import patching_figure
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import MetricName, metric_name
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.mechanism.patching.blocks import Cell, Measured, Runs, partners, rows_at_once, rows_in, sweep_block
from cotinterp.mechanism.patching.native_sweep import Sizes, native_sweep
from cotinterp.mechanism.patching.result import PatchingResult
from cotinterp.mechanism.patching.run_predictions import RunPredictions
from cotinterp.mechanism.sites import as_kind, head_sites, refuse_write, residual_sites
from cotinterp.models.native.parts import NativeParts
from cotinterp.results import Result, output_folder, write_atomic

DIRECTIONS = ("denoise", "noise")


def patch_sweep(
    model: HookedModel,
    contrast: Contrast,
    *,
    kinds: Sequence[str] = ("resid_pre", "attn_out", "mlp_out"),
    heads: bool = False,
    direction: str = "denoise",
    metrics: Sequence[str] = ("logit_diff", "probability", "accuracy"),
    unrelated_donor: bool = False,
    require_gap: bool = True,
    batch_size: int | None = None,
    max_bytes: int | None = None,
    by_hooks: bool = False,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> PatchingResult:
    """Patch every place at every layer of each kind (with `heads`, z of every head too), one cell at a time.

    The first of `metrics` is primary; all are measured on the same runs. `unrelated_donor` is the control of a whole
    sweep: donors are other examples' runs (same layout), while effects stay normalized by the own donor's gap, so a
    cell whose effect is the same with an unrelated donor holds nothing about this pair. `require_gap=False` keeps the
    sweep of a model that does not tell clean from corrupted: its effects are missing and their n is 0. `batch_size`
    bounds the sequences of one forward pass: small batches are stacked, several cells to a pass. `max_bytes` bounds
    what activations may take (by an estimate; 1 GiB unless told), whatever the size of the sweep: examples run in
    blocks and cells in packs. `seed` draws unrelated donors and bootstraps. `labels` (task, regime, seed) go in front
    of the table.

    A native model is patched straight from its weights: positions and blocks that a patch cannot reach are never
    computed, and the numbers are those of the hooks up to the rounding of float32. `why_not_native` names the models
    that are run through their hooks instead, as all are with `by_hooks`. Each sweep compares two unpatched runs, and a
    self-patch of them, with the model's own; should they disagree (its forward pass was replaced), it warns and takes
    the hooks.

    Baselines of every sweep (`PatchingResult.baselines`): `self` (the recipient's own activations: exactly 0), `full`
    (the donor's: exactly 1) and `random_donor` (another example's whole first resid_pre: it breaks the run, and what is
    left need not be 0), at `resid_pre` of layer 0 at all positions; `random_site`, what a patch at a random site of the
    same kind does. Cells where donor and recipient agree bit for bit are 0 without a run.

    Where the contrast has a `reference`, effects are in units of the gap between the clean and the reference run, and
    `whole_change` is what this contrast's own change does: near 0 where the model does not care.

    ValueError: a model in train mode, unknown kinds, directions or metrics, no pair with a gap, a `max_bytes` in which
    no example fits, or a sweep in which nothing changed anything (with a reference, or with `require_gap=False`, that
    is an answer).
    """
    require_eval(model)
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}: {' or '.join(DIRECTIONS)}.")
    names = tuple(metric_name(name) for name in metrics)
    if not names:
        raise ValueError("a sweep needs at least one metric; the first is primary.")
    sites = [site for kind in kinds for site in residual_sites(model, as_kind(kind))]
    sites += head_sites(model) if heads else ()
    for site in sites:
        refuse_write(site)
    contrast = contrast.until_readout(model)
    cells = tuple(Cell(site, place) for site in sites for place in contrast.places)
    if not cells:
        raise ValueError("nothing to patch: no kinds and no heads were asked for, or no place lies before the readout.")
    partner = partners(contrast, np.random.default_rng(seed))

    def runs_of(rows: slice) -> Runs:
        return Runs.of(contrast, rows, partner, noise=direction == "noise")

    asked = _Asked(model, contrast, cells, names, batch_size, max_bytes)
    rows, measure = (None if by_hooks else _from_weights(asked)) or _through_hooks(asked)
    blocks = [measure(runs_of(slice(start, start + rows)), unrelated_donor) for start in range(0, len(contrast), rows)]
    measured = blocks[0].joined(blocks[1:])
    return PatchingResult(
        cells=cells,
        measured=measured,
        addresses={place: contrast.address(place) for place in contrast.places},
        direction=direction,
        pair=contrast.pair + (" (unrelated donor)" if unrelated_donor else ""),
        labels=dict(labels or {}),
        seed=seed,
    ).checked(require_gap=require_gap)


# The examples of a block, and what measures one.
_Plan = tuple[int, Callable[[Runs, bool], Measured]]


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a sweep is of, and how much may run at once."""

    model: HookedModel
    contrast: Contrast
    cells: Sequence[Cell]
    names: Sequence[MetricName]
    batch_size: int | None
    max_bytes: int | None


def _from_weights(asked: _Asked) -> _Plan | None:
    """The sweep of a native model; None for every other, for half precision, and for sites that it does not have."""
    contrast = asked.contrast
    parts = exact_parts(asked.model, contrast.clean)
    if parts is None or _lacks(parts, asked.cells):
        return None
    if asked.batch_size is not None:
        rows_at_once(asked.model, contrast, asked.batch_size)
    sizes = Sizes.of(parts, contrast.clean.shape[1], max_bytes=asked.max_bytes, most_rows=asked.batch_size)

    def measure(runs: Runs, unrelated_donor: bool) -> Measured:
        return native_sweep(parts, runs, asked.cells, asked.names, sizes, unrelated_donor=unrelated_donor)

    return sizes.examples_at_once(), measure


def _through_hooks(asked: _Asked) -> _Plan:
    """The sweep of any model."""
    model, contrast, cells = asked.model, asked.contrast, asked.cells
    rows = rows_at_once(model, contrast, asked.batch_size)
    rows = min(rows, rows_in(model, contrast, {cell.site.whole for cell in cells}, asked.max_bytes))

    def measure(runs: Runs, unrelated_donor: bool) -> Measured:
        stack = max(1, rows // len(runs))
        return sweep_block(model, runs, cells, asked.names, stack=stack, unrelated_donor=unrelated_donor)

    return rows, measure


def _lacks(parts: NativeParts, cells: Sequence[Cell]) -> bool:
    return any(cell.site.kind == "mlp_out" and parts.blocks[cell.site.layer].mlp is None for cell in cells)


CELL = ("site", "layer", "head", "role", "step", "metric")


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

    def scan(self, metric: str | None = None, **options: Any) -> pd.DataFrame:
        """`PatchingResult.scan` of both. Each direction is corrected by itself: they answer different questions."""
        return pd.concat([sweep.scan(metric, **options) for sweep in (self.denoise, self.noise)], ignore_index=True)

    def detail(self) -> pd.DataFrame:
        """`PatchingResult.detail` of both."""
        return pd.concat([self.denoise.detail(), self.noise.detail()], ignore_index=True)

    def figure(self, metric: str | None = None, *, heads: bool | None = None) -> go.Figure:
        """Both directions side by side, on one color scale (`PatchingResult.figure`)."""
        return patching_figure(self.frame(), metric, heads=heads, symbols=self.denoise.symbols)

    def save(self, directory: Path | str, name: str) -> list[Path]:
        """`Result.save`, and the two directions side by side in `tables/<name>_directions.csv`."""
        paths = super().save(directory, name)
        table = self.side_by_side().to_csv(index=False, lineterminator="\n")
        return [*paths, write_atomic(output_folder(Path(directory) / "tables") / f"{name}_directions.csv", table)]


def patch_both_ways(model: HookedModel, contrast: Contrast, **options: Any) -> PatchedBothWays:
    """`patch_sweep` in both directions, with the same options; see there."""
    return PatchedBothWays(
        patch_sweep(model, contrast, direction="denoise", **options),
        patch_sweep(model, contrast, direction="noise", **options),
    )
