"""Bugs in edges between components: an input, a node or a backward rule taken for another."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cotinterp.calibration.mutations.trial import (
    Mutation,
    instead,
    random_model,
    reading_model,
    require,
    total_contrast,
    transcripts,
)
from cotinterp.mechanism.circuits import Edge, Graph, edge_auroc, edge_scores, kept_metrics, native
from cotinterp.mechanism.circuits.native import NativeEdges
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.models.native.parts import native_parts

KNOWN = ("embed->L1H0.v", "L1H0->L1.mlp", "L1.mlp->logits")
"""By these the reader's next total depends on the one written before."""


def check_ends() -> None:
    """All edges kept is the clean run, and none the corrupted one."""
    model, contrast = random_model(), total_contrast(8)
    found = kept_metrics(model, contrast, [Graph.of(model).edges, []])
    for run, tokens, what in zip(found, (contrast.clean, contrast.corrupted), ("all", "none"), strict=True):
        with torch.no_grad():
            expected = logit_diff(model(tokens), contrast.at, contrast.answer, contrast.foil)
        missed = float((torch.from_numpy(run) - expected).abs().max())
        require(missed < 1e-4, f"with {what} of the edges kept the run is {missed:.2g} from what it should be")


def queries_for_keys(right: Callable[..., Any]) -> Callable[..., Any]:
    """Weights of queries and keys, exchanged."""

    def exchanged(self: Any, block: Any) -> tuple[Tensor, Tensor]:
        weight, bias = right(self, block)
        return weight[[1, 0, 2]], bias[[1, 0, 2]]

    return exchanged


def check_known_edges() -> None:
    """The reader's three edges come first in every ranking."""
    for method in ("exact", "eap"):
        found = edge_auroc(edge_scores(reading_model(), total_contrast(8), method=method), KNOWN)
        require(found.auroc > 0.95, f"known edges are ranked above others with chance {found.auroc:.2f} ({method})")


def next_source(self: Graph) -> dict[Edge, tuple[int, int]]:
    """Every edge, with the source after its own."""
    rows = {reader: i for i, reader in enumerate(self.readers)}
    columns = {node: (i + 1) % len(self.sources) for i, node in enumerate(self.sources)}
    return {edge: (rows[edge.dest, edge.input], columns[edge.src]) for edge in self.edges}


def check_relp_conserves() -> None:
    """Without biases, what embed writes times the coefficients of RelP is the metric."""
    model, batch = random_model(), transcripts(4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
    parts, at = native_parts(model), batch.length - 2
    assert parts is not None
    edges = NativeEdges(parts, Graph.of(model))

    def score(readout: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, " batch"]:
        return readout[:, 1] - readout[:, 2]

    slope = edges.gradients(batch.tokens, batch.tokens, 0.0, at, score, linear=True)
    total = (slope * edges.written(batch.tokens)[0]).sum(dim=(0, 2, 3))
    missed = float((total - score(edges.readout(batch.tokens, at))).abs().max())
    require(missed < 1e-3, f"relevance misses the metric by {missed:.2g}")


def with_its_scale(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A norm whose scale has its gradient."""
    return norm(x)


CIRCUIT_MUTATIONS = (
    Mutation(
        "queries and keys of a circuit taken for one another",
        "all edges kept is the clean run",
        instead(NativeEdges, "w_qkv", queries_for_keys(NativeEdges.w_qkv)),
        check_ends,
    ),
    Mutation(
        "edges credited with what another source writes",
        "known edges of a handmade reader come first",
        instead(Graph, "places", property(next_source)),
        check_known_edges,
    ),
    Mutation(
        "RelP that lets norms change their scale",
        "relevance is conserved where there are no biases",
        instead(native, "_constant_scale", with_its_scale),
        check_relp_conserves,
    ),
)
