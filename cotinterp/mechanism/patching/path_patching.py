"""What a sweep over paths found: per example until the table, and the picture of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures import heatmap
from cotinterp.mechanism.contrast import Address, Contrast
from cotinterp.mechanism.metrics import (
    Effects,
    MetricName,
    NoGapError,
    has_gap,
    metric_name,
    missing_effects,
    normalized_effects,
)
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.mechanism.patching.blocks import Changes, Runs, known, partners, rows_at_once, rows_in
from cotinterp.mechanism.patching.native_sweep import Sizes
from cotinterp.mechanism.patching.path_native import native_path_block
from cotinterp.mechanism.patching.path_runs import path_block
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.result import SPOKEN, Scan, scan_effects
from cotinterp.mechanism.patching.sweep import DIRECTIONS
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.models.native.parts import NativeParts
from cotinterp.results import Result, with_labels

COLUMNS = (
    "pair", "direction", "through_mlps", "sender", "sender_layer", "sender_head", "source_role", "source_step",
    "receiver", "receiver_layer", "receiver_head", "input", "destination_role", "destination_step",
    "metric", "effect", "ci_low", "ci_high", "p_adjusted", "n",
)  # fmt: skip
READINGS = {
    "denoise": "Denoising: {metric} restored along one path (0: as corrupted, 1: as clean)",
    "noise": "Noising: {metric} lost along one path (0: as clean, 1: as corrupted)",
}
_ALL = Address("all")


@dataclass(frozen=True, eq=False)
class PathPatchingResult(Result):
    """Normalized effects of every path, per example until asked for the table.

    `measured` holds numerators and denominators by metric, one row for each of `paths`; the first metric is primary.
    `effects` gives the interval of each path alone, `scan` those that hold for all paths at once. Signs and limits:
    see `path_patching`.
    """

    paths: tuple[Path, ...]
    measured: Changes
    addresses: Mapping[str, Address]
    through_mlps: bool
    direction: str
    pair: str
    labels: Mapping[str, str | int]
    seed: int = 0

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """Names of the metrics, the primary one first."""
        return tuple(self.measured.gaps)

    def checked(self, *, require_gap: bool = True) -> "PathPatchingResult":
        """This result. ValueError where no sender held anything else in the donor's run, or (unless told not to ask)
        where the primary metric has no gap. That no path had an effect is an answer, not an error."""
        if require_gap:
            self.effects()
        if not self.measured.ran.any():
            senders = sorted({f"{path.sender} at {path.source or 'all positions'}" for path in self.paths})
            raise ValueError(
                f"nothing was sent: donor and recipient agree bit for bit at every sender ({', '.join(senders[:8])}), "
                "or nothing of it arrived anywhere. Add senders or sources that hold what was changed."
            )
        return self

    def effects(self, metric: str | None = None) -> Effects:
        """Effect of every path with the interval of that path alone, in the order of `paths`."""
        name = self._name(metric)
        return normalized_effects(self.measured.changes[name], self.measured.gaps[name], seed=self.seed)

    def scan(self, metric: str | None = None, *, level: float = 0.95) -> Scan:
        """Intervals and adjusted p-values that hold for all paths of the sweep at once (`scan.scan_effects`)."""
        name = self._name(metric)
        return scan_effects(self.measured.changes[name], self.measured.gaps[name], level=level, seed=self.seed)

    def of(self, path: Path, metric: str | None = None) -> float:
        """Effect of one path. KeyError where it was not measured."""
        if path not in self.paths:
            raise KeyError(f"{path.label} is not among the {len(self.paths)} paths of this sweep")
        return float(self.effects(metric).effect[self.paths.index(path)])

    def baselines(self, metric: str | None = None) -> dict[str, Effects]:
        """`self` (exactly 0), `full` (exactly 1) and `random_donor` (missing where no example has a partner)."""
        name = self._name(metric)
        gap, found = self.measured.gaps[name], {}
        for key, values in self.measured.baselines.items():
            some = bool(np.isfinite(values[name])[has_gap(gap)].any())
            change = values[name][None]
            found[key] = normalized_effects(change, gap, seed=self.seed) if some else missing_effects(1, len(gap))
        return found

    def frame(self) -> pd.DataFrame:
        """tables/paths.csv: one row per metric and path, the baselines first.

        `ci_low` and `ci_high` are of one path, `p_adjusted` is corrected for all paths of that metric. `receiver` is
        a layer's head or MLP, `logits` or `any`; roles are `all` where a path is not restricted to a place.
        """
        rows = [row for metric in self.metrics for row in self._rows(metric)]
        integers = dict.fromkeys(("sender_layer", "sender_head", "receiver_layer", "receiver_head"), "Int64")
        table = pd.DataFrame(rows)[list(COLUMNS)].astype(integers)
        return with_labels(table, {"task": "", "regime": "", "run_seed": "", **self.labels})

    def figure(self, metric: str | None = None) -> go.Figure:
        """Senders by receivers, one facet per input of the receiver; red is negative, blue positive, white 0."""
        name = self._name(metric)
        table = self.frame()
        rows = (
            table[table["metric"] == name]
            .iloc[-len(self.paths) :]
            .assign(
                sent=[self._tick(path.sender.label, path.source) for path in self.paths],
                received=[self._tick(_name_of(path), path.destination) for path in self.paths],
            )
        )
        named = [str(value) for label, value in self.labels.items() if label in ("task", "regime")]
        reading = READINGS[self.direction].format(metric=SPOKEN.get(name, name.replace("_", " ")))
        way = "MLPs recomputed" if self.through_mlps else "MLPs held"
        return heatmap(
            rows.sort_values("receiver_layer", kind="stable", na_position="first"),
            x="received",
            y="sent",
            value="effect",
            facet="input",
            midpoint=0.0,
            title=f"{', '.join([*named, self.pair + ' changed'])}. {reading}, {way} on the way.",
            x_title="receiver",
            y_title="sender",
            value_title="normalized effect",
            hover=["ci_low", "ci_high", "p_adjusted", "n"],
        )

    def _rows(self, metric: MetricName) -> Iterator[dict[str, Any]]:
        shared = {"pair": self.pair, "direction": self.direction, "through_mlps": self.through_mlps, "metric": metric}
        try:
            effects, baselines, p = self.effects(metric), self.baselines(metric), self.scan(metric).p
        except NoGapError:
            pairs = len(self.measured.gaps[metric])
            effects, p = missing_effects(len(self.paths), pairs), np.full(len(self.paths), np.nan)
            baselines = dict.fromkeys(self.measured.baselines, missing_effects(1, pairs))
        for key, baseline in baselines.items():
            ends = {
                **_columns("sender", key, None, "source", _ALL),
                **_columns("receiver", "any", None, "destination", _ALL),
            }
            yield {**shared, **ends, "input": "any", **_numbers(baseline, 0, np.nan)}
        for i, path in enumerate(self.paths):
            source, destination = self._address(path.source), self._address(path.destination)
            receiver = path.receiver if isinstance(path.receiver, Site) else None
            yield {
                **shared,
                **_columns("sender", path.sender.label, path.sender, "source", source),
                **_columns("receiver", _name_of(path), receiver, "destination", destination),
                "input": path.input,
                **_numbers(effects, i, p[i]),
            }

    def _address(self, place: str | None) -> Address:
        return _ALL if place is None else self.addresses[place]

    def _tick(self, end: str, place: str | None) -> str:
        return end if place is None else f"{end} at {place}"

    def _name(self, metric: str | None) -> MetricName:
        name = self.metrics[0] if metric is None else metric_name(metric)
        if name not in self.metrics:
            raise ValueError(f"{name} was not measured in this sweep; it has {list(self.metrics)}.")
        return name


def _name_of(path: Path) -> str:
    """The receiver in words: `L1H0`, `L1` (its MLP), `logits`, `any`."""
    return path.receiver if isinstance(path.receiver, str) else path.receiver.block


def _columns(end: str, name: str, site: Site | None, place: str, address: Address) -> dict[str, Any]:
    layer, head = (None, None) if site is None else (site.layer, site.head)
    found = {end: name, f"{end}_layer": layer, f"{end}_head": head}
    return {**found, f"{place}_role": address.role, f"{place}_step": address.step}


def _numbers(effects: Effects, i: int, p: float) -> dict[str, Any]:
    found = {"effect": effects.effect[i], "ci_low": effects.ci_low[i], "ci_high": effects.ci_high[i]}
    return {**found, "p_adjusted": p, "n": effects.n}


def path_sweep(
    model: HookedModel,
    contrast: Contrast,
    paths: Sequence[Path] | None = None,
    *,
    direction: str = "denoise",
    through_mlps: bool = True,
    metrics: Sequence[str] = ("logit_diff",),
    unrelated_donor: bool = False,
    require_gap: bool = True,
    batch_size: int | None = None,
    max_bytes: int | None = None,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
    by_hooks: bool = False,
) -> PathPatchingResult:
    """Patch every one of `paths` (by default `head_paths(model)`: q, k, v of every head from every earlier head).

    Native models are run from their weights, and only where a path can change anything (`path_native`); others, and
    with `by_hooks` every model, through hooks: one pass for each sender and source, one more for each path along which
    anything arrives. Both agree up to float32 rounding.

    `unrelated_donor` is the control of a whole sweep: senders take another example's run (same layout) while effects
    stay normalized by the own donor's gap. `require_gap`, `batch_size`, `max_bytes`, `seed`, `labels`: as in
    `patch_sweep`. Baselines of every sweep: `self` (the recipient's own values written where paths write: exactly 0),
    `full` (the donor's first resid_pre everywhere: exactly 1) and `random_donor` (another example's).

    ValueError: a model in train mode, unknown places, directions or metrics, paths outside the model, senders that hold
    the same in both runs, or no pair with a gap.
    """
    require_eval(model)
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}: {' or '.join(DIRECTIONS)}.")
    names = tuple(metric_name(name) for name in metrics)
    if not names:
        raise ValueError("a sweep needs at least one metric; the first is primary.")
    chosen = tuple(path.check(model) for path in (head_paths(model) if paths is None else paths))
    if not chosen:
        raise ValueError("no paths to patch: name some, or leave them out for all between heads.")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{len(chosen) - len(set(chosen))} of {len(chosen)} paths are given twice.")
    contrast = contrast.until_readout(model)
    places = {place for path in chosen for place in (path.source, path.destination) if place is not None}
    addresses = {known(place, contrast): contrast.address(place) for place in sorted(places)}
    parts = None if by_hooks else exact_parts(model, contrast.clean)
    rows = min(rows_at_once(model, contrast, batch_size), _fitting(model, contrast, chosen, parts, max_bytes))
    partner = partners(contrast, np.random.default_rng(seed))
    blocks = []
    for start in range(0, len(contrast), rows):
        runs = Runs.of(contrast, slice(start, start + rows), partner, noise=direction == "noise")
        run = partial(path_block, model) if parts is None else partial(native_path_block, parts)
        options = {"through_mlps": through_mlps, "unrelated_donor": unrelated_donor}
        blocks.append(run(runs, chosen, names, stack=rows // len(runs), **options))
    return PathPatchingResult(
        paths=chosen,
        measured=Changes.joined(blocks),
        addresses=addresses,
        through_mlps=through_mlps,
        direction=direction,
        pair=contrast.pair + (" (unrelated donor)" if unrelated_donor else ""),
        labels=dict(labels or {}),
        seed=seed,
    ).checked(require_gap=require_gap)


def _fitting(
    model: HookedModel, contrast: Contrast, paths: Sequence[Path], parts: NativeParts | None, max_bytes: int | None
) -> int:
    """How many sequences of a pass fit in memory, with what a block of as many examples holds beside."""
    if parts is None:
        ends = {end.whole for path in paths for end in (path.sender, path.receiver) if isinstance(end, Site)}
        return rows_in(model, contrast, {*ends, *residual_sites(model, "z")}, max_bytes)
    n = contrast.clean.shape[1]
    sizes = Sizes.of(parts, n, max_bytes=max_bytes, most_rows=None)
    return max(1, min(sizes.examples_at_once(), sizes.runs_at_once(n)))
