"""How well scores of edges stand for the truth: exact patching of the same edges, or edges that are known."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from cotinterp.figures import lines
from cotinterp.figures.patching import agreement_figure
from cotinterp.mechanism.circuits.graph import INPUTS, Edge
from cotinterp.mechanism.circuits.scores import EdgeScores, as_ranking
from cotinterp.mechanism.patching.attribution_patching import agreement_numbers
from cotinterp.results import Result, with_labels

ALL_EDGES = "all edges"
_SOURCES = {"embed": "from embed", "head": "from heads", "mlp": "from MLPs"}


@dataclass(frozen=True, eq=False)
class EdgeAgreement(Result):
    """Estimated and exact effects of the same edges, and how alike they rank them.

    Edges where both are exactly 0 are left out: causal order and equal runs make them so, whatever the estimate is
    worth. The ranking rule is the estimate's.
    """

    estimate: EdgeScores
    exact: EdgeScores

    def frame(self) -> pd.DataFrame:
        """One row for all edges, one for each kind of source, one for each kind of input.

        `n` edges are compared, `left_out` are 0 on both sides. `spearman`: rank correlation under `ranking`. `pearson`:
        of the signed numbers. `overlap_10`: share of the ten with the largest effects that are among the ten with the
        largest scores. NaN with fewer than three edges (ten), or where one side does not vary. `max_difference`:
        largest |score - effect|.
        """
        score, effect, about = self.estimate.effects().effect, self.exact.effects().effect, self.estimate.about()
        rows = []
        for name, chosen in groups_of(self.estimate.edges).items():
            numbers = agreement_numbers(score[chosen], effect[chosen], ranking=self.estimate.ranking, top=(10,))
            rows.append({**about, "edges": name, **numbers})
        return with_labels(pd.DataFrame(rows), self.estimate.labels)

    def figure(self) -> go.Figure:
        """Estimate over truth, one point an edge, colored by the input that it enters; on the line they agree."""
        edges = self.estimate.edges
        points = pd.DataFrame(
            {
                "site": [edge.label for edge in edges],
                "place": self.estimate.place or "all places",
                "kind": [edge.input for edge in edges],
                "score": self.estimate.effects().effect,
                "effect": self.exact.effects().effect,
            }
        )
        overall = self.frame().iloc[0]
        return agreement_figure(
            points,
            title=f"{self.estimate.method} against exact patching of every edge: correlation {overall['pearson']:.2f}, "
            f"largest difference {overall['max_difference']:.2f}",
        )


def edge_agreement(estimate: EdgeScores, exact: EdgeScores) -> EdgeAgreement:
    """`estimate` beside exact patching of the same pairs.

    ValueError where `exact` is not exact, or is about other edges, pairs, metric, direction or place.
    """
    if exact.method != "exact":
        raise ValueError(f"the truth to compare with was made by {exact.method!r}: give edge_scores(method='exact').")
    for name in ("pair", "direction", "metric", "place", "edges"):
        ours, theirs = getattr(estimate, name), getattr(exact, name)
        if ours != theirs:
            said = "" if name == "edges" else f" ({ours!r} and {theirs!r})"
            raise ValueError(f"the two are about different {name}{said}: score the same contrast in the same way.")
    if len(estimate.gap) != len(exact.gap) or not np.allclose(estimate.gap, exact.gap, rtol=1e-3, atol=1e-3):
        raise ValueError("the gaps differ: the two were made of different examples or models.")
    return EdgeAgreement(estimate, exact)


def groups_of(edges: Collection[Edge]) -> dict[str, Bool[np.ndarray, " edges"]]:
    """All edges; those from each kind of source; those into each kind of input. Kinds without edges are left out."""
    found = {ALL_EDGES: np.ones(len(edges), dtype=bool)}
    found |= {name: np.array([edge.src.kind == kind for edge in edges]) for kind, name in _SOURCES.items()}
    found |= {f"into {which}": np.array([edge.input == which for edge in edges]) for which in INPUTS}
    return {name: chosen for name, chosen in found.items() if chosen.any()}


@dataclass(frozen=True, eq=False)
class EdgeAuroc(Result):
    """How well a ranking of all edges finds those that are known to be the mechanism."""

    scores: EdgeScores
    known: frozenset[Edge]

    @property
    def auroc(self) -> float:
        """The chance that a known edge is ranked above another one; ties count half. 0.5 is what chance gives."""
        rank, known = rankdata(self._values()), self._known()
        positives = int(known.sum())
        above = rank[known].sum() - positives * (positives + 1) / 2
        return float(above / (positives * (len(known) - positives)))

    @property
    def missed(self) -> tuple[Edge, ...]:
        """Known edges that are not among as many first ones of the ranking as are known."""
        return tuple(sorted(self.known - self.scores.top(len(self.known))))

    def frame(self) -> pd.DataFrame:
        """One row. `known` of `n` edges are known; `precision` is the share of as many first ones that are.

        `missed` names the known edges that are not among these; empty where all are.
        """
        known, missed = len(self.known), self.missed
        row = {
            **self.scores.about(),
            "n": len(self.scores.edges),
            "known": known,
            "auroc": self.auroc,
            "precision": 1 - len(missed) / known,
            "missed": ", ".join(edge.label for edge in missed),
        }
        return with_labels(pd.DataFrame([row]), self.scores.labels)

    def figure(self) -> go.Figure:
        """Share of the known edges found over share of the others taken along, down the ranking."""
        order = self.scores.ordered()
        hit = np.array([edge in self.known for edge in order])
        curve = pd.DataFrame(
            {
                "others": np.concatenate([[0], np.cumsum(~hit) / (~hit).sum()]),
                "known edges found": np.concatenate([[0], np.cumsum(hit) / hit.sum()]),
            }
        )
        return lines(
            curve,
            x="others",
            y="known edges found",
            title=f"{self.scores.method}: {len(self.known)} known edges among {len(order)}, AUROC {self.auroc:.3f}",
            x_title="share of the other edges taken along",
            y_title="share of the known edges found",
        )

    def _values(self) -> Float[np.ndarray, " edges"]:
        effect = np.nan_to_num(self.scores.effects().effect)
        found: Float[np.ndarray, " edges"] = np.abs(effect) if as_ranking(self.scores.ranking) == "absolute" else effect
        return found

    def _known(self) -> Bool[np.ndarray, " edges"]:
        return np.array([edge in self.known for edge in self.scores.edges])


def edge_auroc(scores: EdgeScores, known: Collection[Edge | str]) -> EdgeAuroc:
    """`scores` held to the edges that are known to be the mechanism, given as edges or as their labels.

    Raises:
        KeyError: A known edge that the model does not have.
        ValueError: A label that is none; none of the edges is known, or all are.
    """
    chosen = frozenset(Edge.parse(edge) if isinstance(edge, str) else edge for edge in known)
    if unknown := sorted(chosen - set(scores.edges)):
        raise KeyError(f"{unknown[0]} is not among the {len(scores.edges)} edges of this model.")
    if not 0 < len(chosen) < len(scores.edges):
        raise ValueError(f"{len(chosen)} of {len(scores.edges)} edges are known: there is nothing to tell apart.")
    return EdgeAuroc(scores, chosen)
