"""Path patching: how much of what one component writes reaches the metric through one input of another.

The effect of a head (an ordinary patch of its z) has gone by every later layer before it is read. Path patching asks
for one way only. Run 2 gives the sender its donor value and holds every head after it at its recipient value; what the
receiver's q, k or v becomes then is what the sender alone does to it. Run 3 writes that, and nothing else, into the
recipient, everything after it recomputed. The effect is again (patched - recipient) / (donor - recipient): 0 nothing
goes this way, 1 all of the gap does. Positive and negative paths may cancel in the sum of all paths ("any").

- `through_mlps=True` (default, as Wang et al.): MLPs between sender and receiver are recomputed in run 2, so that
  "direct" means past no other head. `through_mlps=False`: they are held as well and only the residual stream is left.
  The difference of the two is what the MLPs on the way make of it.
- Norms are recomputed in every run, never frozen: the scale at the receiver (and before the logits) is that of the
  stream which carries the sender's change. On a model without norms the direct path to the logits is exactly
  (z_donor - z_recipient) W_O W_U.
- Directions as in `mechanism.patching`: denoise asks which path suffices, noise which is necessary.

What it does not establish: paths do not add up to "any" unless the model is linear between them; a path that is 0 by
itself may matter together with another (softmax: q and k); two-hop paths through a third head count at that head.

Wang et al. 2022 (IOI), arXiv:2211.00593; Goldowsky-Dill et al. 2023, arXiv:2304.05969.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.fast import exact_parts
from cotinterp.mechanism.metrics import metric_name
from cotinterp.mechanism.model import HookedModel, require_eval
from cotinterp.mechanism.patching.block import Runs
from cotinterp.mechanism.patching.blocks import Changes, known, partners, rows_at_once, rows_in
from cotinterp.mechanism.patching.native_packs import Sizes
from cotinterp.mechanism.patching.path_native import native_path_block
from cotinterp.mechanism.patching.path_result import PathPatchingResult
from cotinterp.mechanism.patching.path_runs import path_block
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.sweep import DIRECTIONS
from cotinterp.mechanism.sites import Site, residual_sites
from cotinterp.models.native.parts import NativeParts


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
    if getattr(model.cfg, "attention_dir", "causal") == "causal":
        contrast = contrast.until_readout()
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
