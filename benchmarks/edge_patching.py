"""Exact patching of every edge of a model: `edge_scores` against one hooked forward pass for each edge.

Timed: each edge by itself carries the corrupted value into the clean run. The peer is a TransformerLens bridge of a
GPT-2 with the same weights, whose hooks give every head an input of its own, which bridges of native models lack.
Equal: the change of the logit difference by every edge in every example, to 1e-5 of the largest logit. Floor: for each
edge the input that it changes and what lies behind it.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.comparison import Agreement, Comparison, matmul_floor
from benchmarks.patching import TOLERANCE, patched_pairs
from benchmarks.workload import Amounts, Workload
from cotinterp.calibration.peers import gpt2_copy
from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.circuits import Edge, Graph, edge_scores
from cotinterp.mechanism.contrast import Contrast
from cotinterp.models.build import Bridge

EdgeChanges = Float[np.ndarray, "edges batch"]


def edge_patchings(workload: Workload, amounts: Amounts) -> Iterator[Comparison]:
    """All edges, on one batch of pairs."""
    pairs = patched_pairs(workload, amounts.path_pairs, amounts.patched_k)
    contrast = Contrast.from_pairs(pairs).select(slice(0, amounts.path_pairs)).until_readout()
    edges = Graph.of(workload.model).edges
    yield Comparison(
        work=f"exact patching of {len(edges)} edges, batch {len(contrast)}",
        peer="one hooked pass for each edge, GPT-2 with the same weights",
        ours=partial(_patched, workload.model, contrast, Budget()),
        theirs=partial(_patched, gpt2_copy(workload.model), contrast, Budget(batch_size=len(contrast))),
        agree=partial(same_edges, workload, contrast),
        floor=matmul_floor(edge_flops(workload, edges, (contrast.at.cpu().numpy() + 1).tolist())),
    )


def same_edges(workload: Workload, contrast: Contrast, ours: EdgeChanges, theirs: EdgeChanges) -> Agreement:
    """Equal where no edge's change differs in any example by more than 1e-5 of the largest logit."""
    with torch.no_grad():
        scale = float(workload.model(contrast.clean).abs().max())
    what = f"change of the logit difference by {len(ours)} edges (largest logit {scale:.3g})"
    return Agreement.within(float(np.abs(ours - theirs).max()), TOLERANCE * scale, what)


def edge_flops(workload: Workload, edges: Sequence[Edge], lengths: Sequence[int]) -> float:
    """Behind each edge everything to the logits, at all positions: where runs differ depends on the pairs."""
    cost, spec = workload.cost, workload.spec.model
    total = 0.0
    for n in lengths:
        block = n * (4 * cost.projection + cost.mlp) + n * (n + 1) / 2 * cost.pair
        last = cost.projection * (2 * n + 2) + cost.mlp + n * cost.pair + cost.logits
        for edge in edges:
            behind = spec.n_layers - 1 - edge.dest.layer
            if edge.dest.kind == "logits" or not behind:
                total += cost.logits + (0 if edge.dest.kind == "logits" else cost.mlp)
            else:
                total += n * cost.mlp + (behind - 1) * block + last
    return total


def _patched(model: Bridge, contrast: Contrast, budget: Budget) -> EdgeChanges:
    return edge_scores(model, contrast, require_gap=False, budget=budget).change
