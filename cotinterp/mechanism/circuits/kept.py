"""What a circuit is worth: runs in which only its edges carry what the clean run would send.

Every edge that is not kept carries its corrupted value; what the nodes write is recomputed from what they then read.
So the input of a destination is the sum, over all edges into it, of what the source writes in this very run where the
edge is kept, and of what it writes in the corrupted run where it is not. All edges kept is the clean run, none the
corrupted one (resample ablation, as in Hanna et al. 2024, arXiv:2403.17806, and Miller et al. 2024, arXiv:2407.08734).
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import BUDGET, Budget
from cotinterp.mechanism.circuits.graph import Edge, Graph
from cotinterp.mechanism.circuits.hooked import HookedEdges
from cotinterp.mechanism.circuits.native import NativeEdges
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import MetricName, measure, metric_name
from cotinterp.mechanism.model import HookedModel, require_causal
from cotinterp.mechanism.model_check import exact_parts
from cotinterp.mechanism.patching.runs import rows_at_once

Edges = NativeEdges | HookedEdges
"""How the edges of a model are run."""


def run_kept(
    model: HookedModel,
    contrast: Contrast,
    edges: Collection[Edge],
    *,
    metric: str = "logit_diff",
    budget: Budget = BUDGET,
) -> Float[np.ndarray, " batch"]:
    """The metric of each example in a run that keeps these edges and corrupts all others; see this module.

    Raises:
        ValueError: As `kept_metrics`.
        KeyError: An edge that the model does not have.
    """
    found: Float[np.ndarray, " batch"] = kept_metrics(model, contrast, [edges], metric=metric, budget=budget)[0]
    return found


def kept_metrics(
    model: HookedModel,
    contrast: Contrast,
    circuits: Sequence[Collection[Edge]],
    *,
    metric: str = "logit_diff",
    budget: Budget = BUDGET,
    by_hooks: bool = False,
) -> Float[np.ndarray, "circuit batch"]:
    """`run_kept` of many circuits, several of them in a pass: the metric by circuit and example, not normalized.

    `metric`: any; "accuracy" is 1 where the answer has the highest logit of all, "kl" is against the clean run. Native
    models are run from their weights; others, and with `by_hooks` every model that has them, through the hooks of split
    inputs.

    Raises:
        ValueError: The model is in train mode, not causal, or its edges cannot be told apart (`Graph.of`); an unknown
            metric.
        KeyError: An edge that the model does not have.
    """
    name = metric_name(metric)
    require_causal(model, "an edge would lead to earlier positions as well")
    graph = Graph.of(model)
    masks = [graph.mask(edges) for edges in circuits]
    shown = contrast.until_readout(model)
    engine = edges_of(model, shown.clean, graph, by_hooks=by_hooks)
    found = np.zeros((len(masks), len(shown)))
    rows = rows_for(model, shown, engine, budget)
    for part, block in blocks(shown, rows):
        clean = engine.readout(block.clean, block.at).double()
        runs = max(1, rows // len(block))
        for first in range(0, len(masks), runs):
            chosen = torch.stack(masks[first : first + runs]).to(block.at.device)
            readouts = engine.kept(block.clean, block.corrupted, block.at, chosen)
            found[first : first + runs, part] = [measured(name, one, block, clean) for one in readouts]
    return found


def edges_of(model: HookedModel, tokens: Int[Tensor, "batch pos"], graph: Graph, *, by_hooks: bool = False) -> Edges:
    """How the edges of this model are run: from its weights where it is native, else through its hooks."""
    parts = None if by_hooks else exact_parts(model, tokens)
    return HookedEdges(model, graph) if parts is None else NativeEdges(parts, graph)


def rows_for(model: HookedModel, contrast: Contrast, edges: Edges, budget: Budget) -> int:
    """Sequences of one pass: as many as are fast, and fit."""
    fitting = max(1, budget.bytes // edges.row_bytes(contrast.clean.shape[1]))
    return min(rows_at_once(model, contrast, budget.batch_size), fitting)


def blocks(contrast: Contrast, rows: int) -> Iterator[tuple[slice, Contrast]]:
    """The examples, `rows` at a time."""
    for start in range(0, len(contrast), rows):
        part = slice(start, min(start + rows, len(contrast)))
        yield part, contrast.select(part)


def measured(
    name: MetricName,
    readout: Float[Tensor, "batch d_vocab"],
    contrast: Contrast,
    clean: Float[Tensor, "batch d_vocab"],
) -> Float[np.ndarray, " batch"]:
    """The metric of each example, in float64; kl is against the clean run."""
    logits = readout.double()
    answer, foil = contrast.answer.to(logits.device), contrast.foil.to(logits.device)
    found: Float[np.ndarray, " batch"] = (
        measure(name, logits, answer=answer, foil=foil, reference=clean).detach().cpu().numpy()
    )
    return found
