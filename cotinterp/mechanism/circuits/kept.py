"""What a circuit is worth: runs in which only its edges carry what the clean run would send.

Every edge that is not kept carries its corrupted value; what the nodes write is recomputed from what they then read.
So the input of a destination is the sum, over all edges into it, of what the source writes in this very run where the
edge is kept, and of what it writes in the corrupted run where it is not. All edges kept is the clean run, none the
corrupted one (resample ablation, as in Hanna et al. 2024, arXiv:2403.17806, and Miller et al. 2024, arXiv:2407.08734).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

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
    return KeptRuns.of(model, contrast, by_hooks=by_hooks, budget=budget).metrics(circuits, [name])[name]


@dataclass(frozen=True, eq=False)
class KeptRuns:
    """A model and a contrast, made ready to run any number of circuits; `rows` sequences go in one pass."""

    edges: Edges
    contrast: Contrast
    rows: int

    @classmethod
    def of(
        cls, model: HookedModel, contrast: Contrast, *, by_hooks: bool = False, budget: Budget = BUDGET
    ) -> "KeptRuns":
        """Errors are those of `kept_metrics`."""
        require_causal(contrast.check(model), "an edge would lead to earlier positions as well")
        shown = contrast.until_readout(model)
        edges = edges_of(model, shown.clean, Graph.of(model), by_hooks=by_hooks)
        return cls(edges, shown, rows_for(model, shown, edges, budget))

    def metrics(
        self, circuits: Sequence[Collection[Edge]], names: Sequence[MetricName]
    ) -> dict[MetricName, Float[np.ndarray, "circuit batch"]]:
        """Every metric by circuit and example, of the same runs. KeyError for edges that the model does not have."""
        masks = [self.edges.graph.mask(circuit) for circuit in circuits]
        found = {name: np.zeros((len(masks), len(self.contrast))) for name in names}
        for part, block in blocks(self.contrast, self.rows):
            clean = self.edges.readout(block.clean, block.at).double()
            runs = max(1, self.rows // len(block))
            for first in range(0, len(masks), runs):
                chosen = torch.stack(masks[first : first + runs]).to(block.at.device)
                for i, readout in enumerate(
                    self.edges.kept(block.clean, block.corrupted, block.at, chosen), start=first
                ):
                    for name in names:
                        found[name][i, part] = measured(name, readout, block, clean)
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
