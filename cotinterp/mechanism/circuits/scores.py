"""What every edge carries of the difference between two runs: patched one by one, or estimated from gradients.

The change of an edge is that of the metric when this edge alone carries the donor's value: what the source writes in
the donor's run enters one input of the destination, and everything behind it is recomputed. The effect is
(patched - recipient) / (donor - recipient): 0 where nothing goes this way, 1 where all of the gap does.

- noise: corrupted values into the clean run. Is the edge necessary, given all others? This is the run that keeps every
  edge but one (`run_kept`). An edge that another stands in for has no effect.
- denoise: clean values into the corrupted run. Does the edge alone suffice? Edges that need one another have no effect.

Methods:

- "exact": the run itself, one for every edge. The truth that the others estimate.
- "eap": (donor - recipient) . gradient at the recipient's input (edge attribution patching; Syed et al. 2023,
  arXiv:2310.10348). Two forward passes and one backward pass for all edges at once.
- "eap-ig": the gradient averaged over `steps` points between the two runs, the midpoints of equal parts of the way from
  the recipient's embedding to the donor's (Hanna et al. 2024, arXiv:2403.17806, who take the ends of the parts).
- "relp": as eap, with another backward pass (relevance patching; Jafari et al. 2025, arXiv:2508.21258). Norms keep
  their scale (LN rule), an activation is its input times the constant f(x) / x (identity rule), and attention keeps its
  pattern (AH rule): by this rule edges into queries and keys have no score at all. Native models alone.

Estimates are exact where the model is linear between the two runs: then the scores of all edges out of `embed` sum to
the gap, and so do those of all edges into the logits. Elsewhere they stand beside their agreement with exact patching
(`EdgeScores.agreement`). What no score establishes: that a set of edges works together (`faithfulness_curve`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import BUDGET, Budget, require_count
from cotinterp.mechanism.circuits.graph import Edge, Graph
from cotinterp.mechanism.circuits.kept import Edges, blocks, edges_of, measured, rows_for
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import METRIC_WORDS, Effects, MetricName, kept_pairs, measure, normalized_effects
from cotinterp.mechanism.model import HookedModel, require_causal
from cotinterp.mechanism.patching.runs import checked_metrics, place_mask, prepared
from cotinterp.results import Result, with_labels

METHODS = ("exact", "eap", "eap-ig", "relp")
RANKINGS = ("absolute", "signed")


@dataclass(frozen=True, eq=False, kw_only=True)
class EdgeScores(Result):
    """The change by every edge, per example until asked for the table; signs and limits: see this module.

    Attributes:
        edges: All edges of the model, in order.
        change: Patched minus recipient, exact or estimated, in the metric's unit.
        gap: Donor minus recipient (with a reference: of the clean and the reference run).
        ranking: How `rank` and `top` order edges: "absolute" by the size of the effect, "signed" from the most positive
            down. Circuits chosen by one or the other differ, which is why it stands in every table.
        steps: Gradients averaged; 0 where no gradient was taken.
        place: The place at which destinations read; empty for all.
    """

    edges: tuple[Edge, ...]
    change: Float[np.ndarray, "edge batch"]
    gap: Float[np.ndarray, " batch"]
    method: str
    direction: str
    metric: MetricName
    ranking: str
    steps: int
    pair: str
    place: str
    labels: Mapping[str, str | int]
    seed: int = 0

    @property
    def per_example(self) -> Float[np.ndarray, "edge batch"]:
        """`change`, the numbers that tables are made of."""
        return self.change

    def effects(self) -> Effects:
        """Normalized effect of every edge with the interval of that edge alone; missing (n = 0) without a gap."""
        return normalized_effects(self.change, self.gap, seed=self.seed)

    def ordered(self, ranking: str | None = None) -> tuple[Edge, ...]:
        """All edges, the first of the ranking first; those of equal effect in the order of edges."""
        rule = as_ranking(self.ranking if ranking is None else ranking)
        effect = np.nan_to_num(self.effects().effect)
        order = np.argsort(-(np.abs(effect) if rule == "absolute" else effect), kind="stable")
        return tuple(self.edges[i] for i in order)

    def top(self, n: int, ranking: str | None = None) -> frozenset[Edge]:
        """The first `n` edges of the ranking. ValueError below 0."""
        require_count("n", n, least=0)
        return frozenset(self.ordered(ranking)[:n])

    def of(self, edge: Edge | str) -> float:
        """Effect of one edge. KeyError for one that the model does not have."""
        wanted = Edge.parse(edge) if isinstance(edge, str) else edge
        if wanted not in self.edges:
            raise KeyError(f"{wanted} is not among the {len(self.edges)} edges of this model.")
        return float(self.effects().effect[self.edges.index(wanted)])

    def frame(self) -> pd.DataFrame:
        """tables/edges.csv: one row an edge, in the order of edges; `rank` 1 is the first by `ranking`.

        Intervals are of one edge over examples; for an estimate they know nothing of how far it is from the truth.
        """
        found, rank = self.effects(), {edge: i for i, edge in enumerate(self.ordered(), start=1)}
        rows = [
            {**self.about(), **edge_columns(edge), **found.columns(i), "dropped": found.dropped, "rank": rank[edge]}
            for i, edge in enumerate(self.edges)
        ]
        return with_labels(pd.DataFrame(rows), self.labels)

    def about(self) -> dict[str, Any]:
        """What every table of these scores says first."""
        return {
            "pair": self.pair,
            "direction": self.direction,
            "place": self.place or "all",
            "method": self.method,
            "steps": self.steps,
            "metric": self.metric,
            "ranking": self.ranking,
        }

    def figure(self) -> go.Figure:
        """Sources by destinations, one facet an input; red is negative, blue positive, white 0."""
        named = f"{METRIC_WORDS.get(self.metric, self.metric.replace('_', ' '))}"
        what = "patched exactly" if self.method == "exact" else f"estimated by {self.method}"
        return heatmap(
            self.frame(),
            x="dest",
            y="src",
            value="effect",
            facet="input",
            midpoint=0.0,
            title=f"{self.pair} changed, {self.direction}: effect of every edge (source by destination) on "
            f"the {named}, {what}",
            x_title=" ",
            y_title=" ",
            value_title="normalized effect",
            hover=["rank", "ci_low", "ci_high", "n"],
        )


def edge_columns(edge: Edge) -> dict[str, Any]:
    """What tables say of an edge; layers and heads are -1 where there are none."""
    ends = {"src": edge.src, "dest": edge.dest}
    found: dict[str, Any] = {"edge": edge.label}
    for name, node in ends.items():
        found |= {name: node.label, f"{name}_kind": node.kind, f"{name}_layer": node.layer, f"{name}_head": node.head}
    return {**found, "input": edge.input}


def as_ranking(name: str) -> str:
    """The ranking of this name. ValueError with those there are."""
    if name not in RANKINGS:
        raise ValueError(f"unknown ranking {name!r}: {' or '.join(RANKINGS)}.")
    return name


def edge_scores(
    model: HookedModel,
    contrast: Contrast,
    *,
    method: str = "exact",
    direction: str = "noise",
    metric: str = "logit_diff",
    ranking: str = "absolute",
    steps: int = 5,
    place: str | None = None,
    require_gap: bool = True,
    by_hooks: bool = False,
    seed: int = 0,
    budget: Budget = BUDGET,
    labels: Mapping[str, str | int] | None = None,
) -> EdgeScores:
    """Every edge's change of the metric by one method in one direction; see this module for all of them.

    Native models are run from their weights: an exact run starts at the input that its edge changes, many edges go at
    once, and edges that carry the same in both runs are exactly 0 without a run. Others (and with `by_hooks` every
    model that has them) go through the hooks of split inputs, a whole pass for every edge. `steps` of eap-ig. `place`:
    counts only what destinations read at this place of the contrast; None for everywhere. `metric`: any for exact, any
    but accuracy for the others. The model is left as it was.

    Raises:
        ValueError: The model is in train mode, not causal, or its edges cannot be told apart; an unknown method,
            direction, metric, ranking or place; steps below 1; no pair with a gap, where one is asked for; relp or
            hooks where the model does not have them.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: one of {METHODS}.")
    (name,) = checked_metrics(model, direction, [metric])
    if method != "exact" and name == "accuracy":
        raise ValueError("accuracy has no gradient to estimate from; take logit_diff, or method='exact'.")
    require_count("steps", steps)
    rule = as_ranking(ranking)
    require_causal(model, "an edge would lead to earlier positions as well")
    graph = Graph.of(model)
    shown = prepared(model, contrast, require_gap=require_gap)
    engine = edges_of(model, shown.clean, graph, by_hooks=by_hooks)
    taken = {"exact": 0, "eap-ig": steps}.get(method, 1)
    parts = [
        _Block(engine, block, name, direction, place).scored(method, taken, rows)
        for rows in [rows_for(model, shown, engine, budget)]
        for _, block in blocks(shown, rows)
    ]
    result = EdgeScores(
        edges=graph.edges,
        change=np.concatenate([change for change, _ in parts], axis=1),
        gap=np.concatenate([gap for _, gap in parts]),
        method=method,
        direction=direction,
        metric=name,
        ranking=rule,
        steps=taken,
        pair=shown.pair,
        place=place or "",
        labels=dict(labels or {}),
        seed=seed,
    )
    if require_gap:
        kept_pairs(result.change, result.gap)
    return result


@dataclass(frozen=True, eq=False)
class _Block:
    """Some examples of a contrast, in one direction."""

    engine: Edges
    contrast: Contrast
    name: MetricName
    direction: str
    place: str | None

    def scored(
        self, method: str, steps: int, rows: int
    ) -> tuple[Float[np.ndarray, "edge batch"], Float[np.ndarray, " batch"]]:
        """Change by every edge, and the gap. `rows`: sequences of one pass."""
        contrast = self.contrast
        clean = self.engine.readout(contrast.clean, contrast.at).double()
        unit = contrast.corrupted if contrast.reference is None else contrast.reference
        gap = measured(self.name, self.engine.readout(unit, contrast.at), contrast, clean)
        gap = gap - measured(self.name, clean, contrast, clean)
        found = self._exact(clean, rows) if method == "exact" else self._estimated(method, steps, clean)
        return found, gap if self.direction == "noise" else -gap

    @property
    def _runs(self) -> tuple[Tensor, Tensor]:
        """Recipient and donor."""
        both = self.contrast.clean, self.contrast.corrupted
        return both if self.direction == "noise" else both[::-1]

    def _exact(self, clean: Float[Tensor, "batch d_vocab"], rows: int) -> Float[np.ndarray, "edge batch"]:
        contrast, edges = self.contrast, self.engine.graph.edges
        recipient, donor = self._runs
        where = place_mask(self.place, contrast, recipient)
        own = measured(self.name, self.engine.readout(recipient, contrast.at), contrast, clean)
        found = np.zeros((len(edges), len(contrast)))
        runs = max(1, rows // len(contrast))
        for i, readout in self.engine.patched(recipient, donor, contrast.at, edges, where, runs=runs):
            found[i] = measured(self.name, readout, contrast, clean) - own
        return found

    def _estimated(
        self, method: str, steps: int, clean: Float[Tensor, "batch d_vocab"]
    ) -> Float[np.ndarray, "edge batch"]:
        contrast, graph = self.contrast, self.engine.graph
        recipient, donor = self._runs
        where = place_mask(self.place, contrast, recipient)
        points = [0.0] if method != "eap-ig" else [(i + 0.5) / steps for i in range(steps)]
        slopes = [
            self.engine.gradients(recipient, donor, point, contrast.at, self._score(clean), linear=method == "relp")
            for point in points
        ]
        differs = (self.engine.written(donor) - self.engine.written(recipient)) * where[..., None]
        slope = torch.stack(slopes).mean(dim=0)
        by_place = einsum(differs, slope, "source batch pos d, reader batch pos d -> reader source batch")
        places = torch.tensor([graph.places[edge] for edge in graph.edges], device=by_place.device)
        found: Float[np.ndarray, "edge batch"] = by_place[places[:, 0], places[:, 1]].double().cpu().numpy()
        return found

    def _score(self, clean: Float[Tensor, "batch d_vocab"]) -> Callable[[Tensor], Float[Tensor, " batch"]]:
        answer, foil = (tensor.to(clean.device) for tensor in (self.contrast.answer, self.contrast.foil))
        return lambda readout: measure(self.name, readout.double(), answer=answer, foil=foil, reference=clean)
