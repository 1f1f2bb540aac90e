"""Path patching between all heads: `path_sweep` against the same sweep by hooks.

Timed: q, k and v of every head from every earlier head, the direct path of each to the logits, and all of its paths
together. The peer is the generic way, one hooked forward pass for each path, which any model takes that somebody has
attached a hook to: one that does nothing is attached here. Equal: the change of the logit difference for every path and
example, to 1e-5 of the largest logit. Floor: for each path what lies behind the receiver; for each sender the MLPs on
the way and what they send to the receivers.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.comparison import Agreement, Comparison, matmul_floor
from benchmarks.patching import TOLERANCE, patched_pairs
from benchmarks.workload import Amounts, Workload
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.path_patching import path_sweep
from cotinterp.mechanism.patching.paths import Path, head_paths
from cotinterp.mechanism.patching.runs import PatchingControls
from cotinterp.mechanism.sites import Site

PathChanges = Float[np.ndarray, "paths batch"]


def path_sweeps(workload: Workload, amounts: Amounts) -> Iterator[Comparison]:
    """All paths between heads, on one batch of pairs."""
    pairs = patched_pairs(workload, amounts.path_pairs, amounts.patched_k)
    contrast = Contrast.from_pairs(pairs).select(slice(0, amounts.path_pairs)).until_readout()
    paths = head_paths(workload.model)
    yield Comparison(
        work=f"path patching, {len(paths)} paths, batch {len(contrast)}",
        peer="one hooked pass for each path",
        ours=partial(_swept, workload, contrast),
        theirs=partial(_hooked, workload, contrast),
        agree=partial(same_paths, workload, contrast),
        floor=matmul_floor(path_flops(workload, paths, (contrast.at.cpu().numpy() + 1).tolist())),
    )


def same_paths(workload: Workload, contrast: Contrast, ours: PathChanges, theirs: PathChanges) -> Agreement:
    """Equal where no path's change differs in any example by more than 1e-5 of the largest logit."""
    with torch.no_grad():
        scale = float(workload.model(contrast.clean).abs().max())
    what = f"change of the logit difference along {len(ours)} paths (largest logit {scale:.3g})"
    return Agreement.within(float(np.abs(ours - theirs).max()), TOLERANCE * scale, what)


def path_flops(workload: Workload, paths: tuple[Path, ...], lengths: list[int]) -> float:
    """Each sender's way to the receivers once, and behind each receiver everything to the logits."""
    cost, spec = workload.cost, workload.spec.model
    total = 0.0
    for n in lengths:
        # A block at all positions, and the last, of which one query is read.
        block = n * (4 * cost.projection + cost.mlp) + n * (n + 1) / 2 * cost.pair
        last = cost.projection * (2 * n + 2) + cost.mlp + n * cost.pair + cost.logits
        for sender in {path.sender for path in paths}:
            total += n * (spec.n_layers - sender.layer) * (cost.mlp + 3 * cost.projection)
        for path in paths:
            if path.receiver == "logits":
                total += cost.logits
                continue
            layer = path.receiver.layer if isinstance(path.receiver, Site) else path.sender.layer
            behind = spec.n_layers - 1 - layer
            own = n * (2 * spec.d_head * spec.d_model + cost.mlp)
            total += own + max(0, behind - 1) * block + (last if behind else cost.logits)
    return total


def _swept(workload: Workload, contrast: Contrast) -> PathChanges:
    result = path_sweep(workload.model, contrast, controls=PatchingControls(require_gap=False))
    return np.asarray(result.measured.changes["logit_diff"])


def _hooked(workload: Workload, contrast: Contrast) -> PathChanges:
    with workload.hooked():
        return _swept(workload, contrast)
