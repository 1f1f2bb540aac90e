"""Patching every layer and position: `patch_sweep` against TransformerLens's `get_act_patch_*`.

Timed: from the two token batches to one number a cell, the clean cache included. Peers: `get_act_patch_resid_pre` and
`get_act_patch_attn_head_out_by_pos`, one forward pass a cell; of large sweeps they do evenly spaced cells, all of which
cost them the same. Equal: the mean change of the logit difference in every cell that both did, to 1e-5 of the largest
logit. Floor: for each cell and example only what the patch can change and the readout can see, and the two runs
themselves.
"""

from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from itertools import product

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import patching

from benchmarks.comparison import Agreement, Comparison, matmul_floor
from benchmarks.workload import Amounts, Workload
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.patching.runs import PatchingControls
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.sites import Kind, residual_sites
from cotinterp.transcripts.pairs import Pairs, operand_pairs
from cotinterp.transcripts.roles import Role

TOLERANCE = 1e-5
Cells = Float[Tensor, " cells"]


@dataclass(frozen=True)
class Sweep:
    """One kind of sweep: what it is called, what it patches, and whether head by head."""

    name: str
    peer: str
    kind: Kind
    heads: bool


RESID_PRE = Sweep("resid_pre sweep", "get_act_patch_resid_pre", "resid_pre", heads=False)
HEADS = Sweep("z sweep by head and position", "get_act_patch_attn_head_out_by_pos", "z", heads=True)


def resid_pre_sweeps(workload: Workload, amounts: Amounts) -> Iterator[Comparison]:
    """Every layer and position, at every batch size."""
    for batch in amounts.patched:
        yield sweep_comparison(workload, RESID_PRE, patched(workload, batch, amounts.patched_k), amounts.peer_sequences)


def head_sweeps(workload: Workload, amounts: Amounts) -> Iterator[Comparison]:
    """Every head and position, at every batch size."""
    for batch in amounts.patched:
        yield sweep_comparison(workload, HEADS, patched(workload, batch, amounts.patched_k), amounts.peer_sequences)


def sweep_comparison(workload: Workload, sweep: Sweep, contrast: Contrast, peer_sequences: int) -> Comparison:
    """Ours over all cells against the peer over those that it is given."""
    layers, heads = workload.spec.model.n_layers, workload.spec.model.n_heads
    n = contrast.clean.shape[1]
    axes = (range(layers), range(heads), range(n)) if sweep.heads else (range(layers), range(n))
    cells = list(product(*axes))
    stride = max(1, -(-len(cells) * len(contrast) // peer_sequences))
    chosen = np.arange(stride // 2, len(cells), stride)
    # Theirs counts layer, position, head; ours layer, head, position.
    theirs = pd.DataFrame([(cells[i][0], cells[i][-1], *cells[i][1:-1]) for i in chosen])
    return Comparison(
        work=f"{sweep.name}, {layers} layers x {n} positions, batch {len(contrast)}",
        peer=f"TransformerLens {sweep.peer}",
        ours=partial(_ours, workload, sweep, contrast),
        theirs=partial(_theirs, workload, sweep, contrast, theirs),
        agree=lambda ours, theirs: same_changes(workload, contrast, ours[chosen], theirs),
        floor=matmul_floor(sweep_flops(workload, sweep, contrast)),
        their_share=len(chosen) / len(cells),
    )


def patched(workload: Workload, n: int, k: int) -> Contrast:
    """`n` pairs whose first operand differs, and with it the whole trace, read at the answer; a place a position."""
    pairs = patched_pairs(workload, n, k)
    contrast = Contrast.by_position(pairs.clean.tokens, pairs.corrupted.tokens, pairs.at, pairs.answer, pairs.foil)
    device = workload.device
    moved = contrast.select(slice(0, n)).until_readout()
    tensors = (moved.clean, moved.corrupted, moved.at, moved.answer, moved.foil)
    return Contrast.by_position(*(tensor.to(device) for tensor in tensors))


def patched_pairs(workload: Workload, n: int, k: int) -> Pairs:
    """At least `n` such pairs, fewer only where the task has fewer."""
    return operand_pairs(
        workload.task,
        workload.heldout(2 * n + 8, k=k),
        workload.spec.regime,
        index=0,
        rng=np.random.default_rng(0),
        readout=(Role.ANSWER, k - 1),
    )


def same_changes(workload: Workload, contrast: Contrast, ours: Cells, theirs: Cells) -> Agreement:
    """Equal where no cell's mean change differs by more than 1e-5 of the largest logit."""
    with torch.no_grad():
        scale = float(workload.model(contrast.clean).abs().max())
    difference = float((ours.double().cpu() - theirs.double().cpu()).abs().max())
    what = f"mean change of the logit difference in {len(theirs)} cells (largest logit {scale:.3g})"
    return Agreement.within(difference, TOLERANCE * scale, what)


def sweep_flops(workload: Workload, sweep: Sweep, contrast: Contrast) -> float:
    """Of every cell at which the two runs can differ, and of the runs."""
    cost, layers = workload.cost, workload.spec.model.n_layers
    differ = (contrast.clean != contrast.corrupted).cpu().numpy()
    lengths = contrast.at.cpu().numpy() + 1
    total = 2 * cost.forward(lengths, read=len(lengths))
    for row, n in enumerate(lengths.tolist()):
        here = np.flatnonzero(differ[row, :n])
        for layer, position in product(range(layers), range(int(here[0]), n)):
            if sweep.heads:
                total += workload.spec.model.n_heads * cost.head_patched(layer, position, n)
            elif layer or differ[row, position]:
                total += cost.resumed(layer, position, n)
    return total


def _ours(workload: Workload, sweep: Sweep, contrast: Contrast) -> Cells:
    kinds = () if sweep.heads else (sweep.kind,)
    found = patch_sweep(
        workload.model,
        contrast,
        kinds=kinds,
        heads=sweep.heads,
        metrics=("logit_diff",),
        controls=PatchingControls(require_gap=False),
    )
    return torch.from_numpy(found.measured.changes["logit_diff"].mean(axis=1))


def _theirs(workload: Workload, sweep: Sweep, contrast: Contrast, cells: pd.DataFrame) -> Cells:
    def metric(logits: Tensor) -> Tensor:
        return logit_diff(logits, contrast.at, contrast.answer, contrast.foil).mean()

    model, names = workload.model, [site.hook for site in residual_sites(workload.model, sweep.kind)]
    function = getattr(patching, sweep.peer)
    with torch.no_grad(), redirect_stderr(StringIO()):  # it shows a progress bar
        _, cache = model.run_with_cache(contrast.clean, names_filter=names)
        found: Tensor = function(
            model, contrast.corrupted, cache, metric, index_axis_names=None, index_df=cells
        ) - metric(model(contrast.corrupted))
    return found
