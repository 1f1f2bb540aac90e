"""Path patching: what one component writes, along one way only, to one input of a later one.

An ordinary patch of a head's z acts by way of every later layer before it is read; a path is one of these ways. Three
runs make its effect: the recipient's and the donor's; one in which a sender's output is the donor's and every later
head is held at its recipient value, which says what reaches the receiver's input directly; and one in which that input
alone is changed in the recipient, and everything after it recomputed.

The effect is (patched - recipient) / (donor - recipient): 0 where nothing goes this way, 1 where all of the gap does;
positive and negative paths may cancel in the sum of all paths ("any"). `direction` is that of `patch_sweep`: denoise
asks which path suffices, noise which is necessary. A path that cannot matter is exactly 0.

- `through_mlps=True` (as Wang et al.): MLPs between sender and receiver are recomputed, so that "direct" means past no
  other head. False: they are held as well, and only the residual stream is left. The difference of the two is what the
  MLPs on the way make of it.
- Norms are recomputed in every run, never frozen: the scale at the receiver, and before the logits, is that of the
  stream that carries the sender's change. On a model without norms, and with MLPs held, the direct path of a head
  changes the logits by exactly (z_donor - z_recipient) W_O W_U.

What it does not establish: paths do not add up to "any" unless the model is linear between them; a path that is 0 by
itself may matter together with another (q and k meet in a softmax); a path by way of a third head counts at that head.

Wang et al. 2022, arXiv:2211.00593; Goldowsky-Dill et al. 2023, arXiv:2304.05969.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import BUDGET, Budget
from cotinterp.mechanism.contrast import Address, Contrast
from cotinterp.mechanism.metrics import METRIC_WORDS
from cotinterp.mechanism.model import HookedModel, is_causal
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.mechanism.patching.effects import ALL, EffectsResult
from cotinterp.mechanism.patching.path_hooks import path_block
from cotinterp.mechanism.patching.path_native import native_path_block
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.runs import (
    CONTROLS,
    Changes,
    PatchingControls,
    Runs,
    checked_metrics,
    checked_place,
    prepared,
    rows_at_once,
    rows_in,
)
from cotinterp.mechanism.patching.sweep_native import Sizes
from cotinterp.mechanism.sites import Site, residual_sites, site_columns
from cotinterp.models.native.parts import NativeParts

READINGS = {
    "denoise": "Denoising: {metric} restored along one path (0: as corrupted, 1: as clean)",
    "noise": "Noising: {metric} lost along one path (0: as clean, 1: as corrupted)",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class PathPatchingResult(EffectsResult):
    """Normalized effects of every path; signs and limits: see this module."""

    paths: tuple[Path, ...]
    through_mlps: bool

    @property
    def names(self) -> tuple[Path, ...]:
        """The paths."""
        return self.paths

    def of(self, path: Path, metric: str | None = None) -> float:
        """Effect of one path. KeyError where it was not measured."""
        if path not in self.paths:
            raise KeyError(f"{path.label} is not among the {len(self.paths)} paths of this sweep")
        return float(self.effects(metric).effect[self.paths.index(path)])

    def columns(self, i: int) -> dict[str, Any]:
        """Both ends of a path, each with its place."""
        path = self.paths[i]
        return self._ends(path.sender, self._address(path.source), path.receiver, self._address(path.destination))

    def baseline_columns(self, name: str) -> dict[str, Any]:
        """The baseline's name as that of a sender, which acts along all paths."""
        return self._ends(name, ALL, "any", ALL)

    def frame(self) -> pd.DataFrame:
        """tables/paths.csv: one row per metric and path, the baselines first.

        `ci_low` and `ci_high` are of one path, `p_adjusted` is corrected for all paths of that metric (`scan`).
        `receiver` is an input (`L1H0.q`, `L1.mlp_out`), `logits` or `any`; roles are `all` where a path is not
        restricted to a place.
        """
        table = super().frame()
        none = [np.nan] * (len(table) // len(self.metrics) - len(self.paths))
        p = np.concatenate([[*none, *self.scan(metric).found[0].p] for metric in self.metrics])
        table.insert(list(table.columns).index("n"), "p_adjusted", p)
        return table

    def figure(self, metric: str | None = None) -> go.Figure:
        """Senders by receivers, one facet per input of the receiver; red is negative, blue positive, white 0."""
        name, table = self.measured_metric(metric), self.frame()
        reading = READINGS[self.direction].format(metric=METRIC_WORDS.get(name, name.replace("_", " ")))
        way = "MLPs recomputed" if self.through_mlps else "MLPs held"
        rows = table[table["metric"] == name].iloc[-len(self.paths) :]
        return self._senders_by_receivers(rows, f"{reading}, {way} on the way")

    def scan_figure(self, scanned: pd.DataFrame) -> go.Figure:
        """Effects of the flagged paths, senders by receivers; gray where a path is not told from nothing."""
        shown = scanned.assign(effect=scanned["effect"].where(scanned["flagged"]))
        return self._senders_by_receivers(shown, "effects that a scan tells from nothing")

    def _senders_by_receivers(self, rows: pd.DataFrame, said: str) -> go.Figure:
        received, sent = zip(*map(self._ticks, self.paths), strict=True)
        named = [str(value) for label, value in self.labels.items() if label in ("task", "regime")]
        return heatmap(
            rows.assign(sent=sent, received=received).sort_values("receiver_layer", kind="stable"),
            x="received",
            y="sent",
            value="effect",
            facet="receiver_kind",
            midpoint=0.0,
            title=f"{', '.join([*named, self.pair + ' changed'])}. {said}.",
            x_title="receiver",
            y_title="sender",
            value_title="normalized effect",
            hover=["ci_low", "ci_high", "p_adjusted", "n"],
        )

    def _ticks(self, path: Path) -> tuple[str, str]:
        """Receiver and sender, each with its place."""
        receiver = path.receiver if isinstance(path.receiver, str) else path.receiver.block
        ends = ((receiver, path.destination), (path.sender.label, path.source))
        across, down = (end if place is None else f"{end} at {place}" for end, place in ends)
        return across, down

    def _address(self, place: str | None) -> Address:
        return ALL if place is None else self.addresses[place]

    def _ends(self, sender: Site | str, source: Address, receiver: Site | str, destination: Address) -> dict[str, Any]:
        found: dict[str, Any] = {"through_mlps": self.through_mlps}
        ends = {"sender": (sender, "source", source), "receiver": (receiver, "destination", destination)}
        for end, (site, place, address) in ends.items():
            named = site_columns(site)
            found |= {end: named.pop("site"), **{f"{end}_{column}": value for column, value in named.items()}}
            found |= {f"{place}_role": address.role, f"{place}_step": address.step}
        return found

    def _nothing_differs(self) -> str:
        senders = sorted({f"{path.sender} at {path.source or 'all positions'}" for path in self.paths})
        return (
            f"nothing was sent: donor and recipient agree bit for bit at every sender ({', '.join(senders[:8])}), "
            "or nothing of it arrived anywhere. Add senders or sources that hold what was changed."
        )


def path_sweep(
    model: HookedModel,
    contrast: Contrast,
    paths: Sequence[Path] | None = None,
    *,
    direction: str = "denoise",
    through_mlps: bool = True,
    metrics: Sequence[str] = ("logit_diff",),
    controls: PatchingControls = CONTROLS,
    budget: Budget = BUDGET,
    labels: Mapping[str, str | int] | None = None,
) -> PathPatchingResult:
    """Patch every one of `paths` (by default `head_paths(model)`: q, k, v of every head from every earlier head).

    Native models are run from their weights, and only where a path can change anything (`path_native`); others, and
    with `controls.by_hooks` every model, through hooks: one pass for each sender and source, one more for each path
    along which anything arrives. Both agree up to float32 rounding. `through_mlps`: the MLPs between sender and
    receiver are recomputed, or held like the heads.

    `metrics`, `controls`, `budget` and `labels` are those of `patch_sweep`. Baselines of every sweep: `self` (the
    recipient's own values written where paths write: exactly 0), `full` (the donor's first resid_pre everywhere:
    exactly 1) and `random_donor` (another example's).

    ValueError: a model in train mode, unknown places, directions or metrics, paths outside the model, senders that hold
    the same in both runs, or no pair with a gap.
    """
    names = checked_metrics(model, direction, metrics)
    chosen = tuple(path.check(model) for path in (head_paths(model) if paths is None else paths))
    if not chosen:
        raise ValueError("no paths to patch: name some, or leave them out for all between heads.")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{len(chosen) - len(set(chosen))} of {len(chosen)} paths are given twice.")
    contrast = prepared(model, contrast, require_gap=controls.require_gap)
    places = {place for path in chosen for place in (path.source, path.destination) if place is not None}
    addresses = {checked_place(place, contrast): contrast.address(place) for place in sorted(places)}
    parts = None if controls.by_hooks else exact_parts(model, contrast.clean)
    rows = min(rows_at_once(model, contrast, budget.batch_size), _fitting(model, contrast, chosen, parts, budget.bytes))
    run = partial(path_block, model) if parts is None else partial(native_path_block, parts)
    options = {"through_mlps": through_mlps, "unrelated_donor": controls.unrelated_donor}
    blocks = Runs.blocks(contrast, rows, direction=direction, seed=controls.seed, causal=is_causal(model))
    result = PathPatchingResult(
        paths=chosen,
        measured=Changes.joined([run(runs, chosen, names, stack=rows // len(runs), **options) for runs in blocks]),
        addresses=addresses,
        through_mlps=through_mlps,
        direction=direction,
        pair=contrast.pair + (" (unrelated donor)" if controls.unrelated_donor else ""),
        labels=dict(labels or {}),
        seed=controls.seed,
    )
    result.check(require_gap=controls.require_gap)
    return result


def _fitting(
    model: HookedModel, contrast: Contrast, paths: Sequence[Path], parts: NativeParts | None, max_bytes: int
) -> int:
    """How many sequences of a pass fit in memory, with what a block of as many examples holds beside."""
    if parts is None:
        ends = {end.whole for path in paths for end in (path.sender, path.receiver) if isinstance(end, Site)}
        return rows_in(model, contrast, {*ends, *residual_sites(model, "z")}, max_bytes)
    n = contrast.clean.shape[1]
    sizes = Sizes.of(parts, n, Budget(max_bytes=max_bytes))
    return max(1, min(sizes.examples_at_once(), sizes.runs_at_once(n)))
