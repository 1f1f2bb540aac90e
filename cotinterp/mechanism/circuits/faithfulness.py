"""Circuits chosen from scores or by search, and how much of the behavior they keep.

Faithfulness of a circuit is (m(circuit) - m(corrupted)) / (m(clean) - m(corrupted)), where m is the metric of the run
that keeps the circuit and corrupts all other edges (`run_kept`): 0 for no edge, 1 for all of them. Over sizes it gives
the two areas of the Mechanistic Interpretability Benchmark (Mueller et al. 2025, arXiv:2504.13151): CPR, the area under
the curve (how well first edges perform: more is better, and above 1 is possible), and CMD, the area between the curve
and 1 (how far circuits are from the model: 0 is best). Areas are by trapezoids over the share of all edges from 0 to 1,
at the sizes of `sizes_of`, those of the benchmark; both change with the ranking rule, which stands in the table.

A faithful circuit need not be the mechanism: what it leaves out may be done by what it keeps in another way, and many
circuits may be as faithful. Faithfulness in the metric is not faithfulness of the text: `accuracy` says how often the
circuit puts the answer first.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from cotinterp.figures import lines
from cotinterp.mechanism.activations import BUDGET, Budget
from cotinterp.mechanism.circuits.graph import Edge, Graph
from cotinterp.mechanism.circuits.kept import KeptRuns
from cotinterp.mechanism.circuits.scores import EdgeScores, as_ranking
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import Effects, kept_pairs, metric_name, normalized_effects
from cotinterp.mechanism.model import HookedModel
from cotinterp.results import Result, with_labels

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of the benchmark, as shares of all edges."""


def sizes_of(n_edges: int, shares: Sequence[float] = SHARES) -> tuple[int, ...]:
    """Sizes at which circuits are measured: none, then these shares of all edges, rounded up, each size once."""
    return tuple(sorted({0, *(int(np.ceil(share * n_edges)) for share in shares)}))


@dataclass(frozen=True, eq=False, kw_only=True)
class FaithfulnessCurve(Result):
    """The metric of circuits of growing size, per example; signs and limits: see this module.

    Attributes:
        circuits: The edges of each, smallest first; the last has all edges of the model.
        metrics: The metric of each example in the run that keeps each circuit.
        accuracy: 1 where that run puts the answer first.
        clean, corrupted: The metric of the two runs.
        about: What the scores say of themselves.
    """

    circuits: tuple[frozenset[Edge], ...]
    metrics: Float[np.ndarray, "circuit batch"]
    accuracy: Float[np.ndarray, "circuit batch"]
    clean: Float[np.ndarray, " batch"]
    corrupted: Float[np.ndarray, " batch"]
    about: Mapping[str, Any]
    n_connected: tuple[int, ...]
    labels: Mapping[str, str | int]
    seed: int = 0

    def effects(self) -> Effects:
        """Faithfulness of every circuit, with its interval over examples."""
        return normalized_effects(self.metrics - self.corrupted, self.clean - self.corrupted, seed=self.seed)

    @property
    def share(self) -> Float[np.ndarray, " circuit"]:
        """Edges of each circuit, as a share of all."""
        sizes = np.array([len(circuit) for circuit in self.circuits], dtype=np.float64)
        found: Float[np.ndarray, " circuit"] = sizes / sizes[-1]
        return found

    @property
    def cpr(self) -> float:
        """Area under faithfulness over the share of edges."""
        return float(np.trapezoid(self.effects().effect, self.share))

    @property
    def cmd(self) -> float:
        """Area between faithfulness and 1 over the share of edges."""
        return float(np.trapezoid(np.abs(1 - self.effects().effect), self.share))

    def smallest(self, least: float = 0.9) -> frozenset[Edge]:
        """The smallest of the circuits whose faithfulness is at least this. ValueError where none is."""
        for circuit, effect in zip(self.circuits, self.effects().effect, strict=True):
            if effect >= least:
                return circuit
        raise ValueError(f"no circuit has a faithfulness of {least:g}: the whole model has 1.")

    def frame(self) -> pd.DataFrame:
        """tables/faithfulness.csv: one row a size; `cpr` and `cmd` are of the whole curve, the same in all rows.

        `size` edges, of which `connected` lie on a way from embed to logits; `share` of all edges; `accuracy` is the
        share of all examples in which the circuit puts the answer first.
        """
        found = self.effects()
        rows = []
        for i, circuit in enumerate(self.circuits):
            numbers = found.columns(i)
            rows.append(
                {
                    **self.about,
                    "size": len(circuit),
                    "connected": self.n_connected[i],
                    "share": self.share[i],
                    "faithfulness": numbers.pop("effect"),
                    **numbers,
                    "dropped": found.dropped,
                    "accuracy": float(self.accuracy[i].mean()),
                    "cpr": self.cpr,
                    "cmd": self.cmd,
                }
            )
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """Faithfulness over the number of edges kept, with its interval."""
        return lines(
            self.frame(),
            x="size",
            y="faithfulness",
            low="ci_low",
            high="ci_high",
            title=f"Circuits by {self.about['method']} ({self.about['ranking']}): CPR {self.cpr:.2f}, "
            f"CMD {self.cmd:.2f}",
            x_title="edges kept",
            y_title="faithfulness (0: corrupted run, 1: clean run)",
        )


def faithfulness_curve(
    model: HookedModel,
    contrast: Contrast,
    scores: EdgeScores,
    *,
    sizes: Sequence[int] | None = None,
    ranking: str | None = None,
    by_hooks: bool = False,
    budget: Budget = BUDGET,
) -> FaithfulnessCurve:
    """How faithful the first edges of a ranking are, by how many are kept.

    `sizes`: by default `sizes_of`; no edge and all edges always come along. `ranking`: by default that of the scores.

    Raises:
        ValueError: As `kept_metrics`; sizes outside 0 and the number of edges; no pair with a gap.
    """
    graph, rule = Graph.of(model), as_ranking(scores.ranking if ranking is None else ranking)
    if graph.edges != scores.edges:
        raise ValueError(
            f"the scores are of {len(scores.edges)} edges, the model has {len(graph.edges)}: another model?"
        )
    chosen = sorted({0, len(graph.edges), *(sizes_of(len(graph.edges)) if sizes is None else sizes)})
    if chosen[0] < 0 or chosen[-1] > len(graph.edges):
        raise ValueError(f"sizes {list(sizes or ())} leave 0 to {len(graph.edges)}, the number of edges.")
    ordered = scores.ordered(rule)
    circuits = tuple(frozenset(ordered[:size]) for size in chosen)
    runs = KeptRuns.of(model, contrast, by_hooks=by_hooks, budget=budget)
    found = runs.metrics(circuits, list(dict.fromkeys((scores.metric, "accuracy"))))
    kept = found[scores.metric]
    kept_pairs(kept, kept[-1] - kept[0])
    return FaithfulnessCurve(
        circuits=circuits,
        metrics=kept,
        accuracy=found["accuracy"],
        clean=kept[-1],
        corrupted=kept[0],
        about={**scores.about(), "ranking": rule},
        n_connected=tuple(len(graph.connected(circuit)) for circuit in circuits),
        labels=scores.labels,
        seed=scores.seed,
    )


def greedy_circuit(
    model: HookedModel,
    contrast: Contrast,
    *,
    order: Sequence[Edge] | None = None,
    tolerance: float = 0.01,
    metric: str = "logit_diff",
    start: Collection[Edge] | None = None,
    budget: Budget = BUDGET,
) -> frozenset[Edge]:
    """A circuit from which no edge was taken that mattered when its turn came (ACDC: Conmy et al. 2023,
    arXiv:2304.14997, with resample ablation and this metric in place of KL).

    Edges are tried one after the other, by default from the logits back to the embedding; each is left out for good
    where the faithfulness of what is then kept changes by at most `tolerance`. Edges that lie on no way from embed to
    logits go without a run. Of two edges that stand in for one another it keeps the one that comes later in `order`:
    scores of single edges see neither. `start`: the edges to begin with; None for all.

    Raises:
        ValueError: As `kept_metrics`; a tolerance below 0; no pair with a gap.
        KeyError: An edge that the model does not have.
    """
    graph, name = Graph.of(model), metric_name(metric)
    if tolerance < 0:
        raise ValueError(f"tolerance={tolerance}: a change of faithfulness, at least 0.")
    kept = graph.connected(graph.edges if start is None else start)
    runs = KeptRuns.of(model, contrast, budget=budget)
    clean, corrupted = runs.metrics([graph.edges, []], [name])[name]
    pairs = kept_pairs(clean[None], clean - corrupted)
    gap = float((clean - corrupted)[pairs].mean())

    def mean(edges: Collection[Edge]) -> float:
        return float(runs.metrics([edges], [name])[name][0, pairs].mean())

    now = mean(kept)
    for edge in graph.edges[::-1] if order is None else order:
        if edge not in graph.check(kept):
            continue
        without = graph.connected(kept - {edge})
        then = mean(without)
        if abs(then - now) <= tolerance * abs(gap):
            kept, now = without, then
    return kept
