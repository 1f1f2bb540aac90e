"""How many other circuits do as well: a circuit that is one of many equals has not been identified.

Several circuits, and several explanations of one circuit, may fit the same behavior (Méloux et al. 2025,
arXiv 2502.20914), and a test that untrained models pass says nothing about trained ones (Sutter et al. 2025,
arXiv 2507.08802). The census asks one question of many circuits of the same size, and of the circuits of untrained
models: are they equivalent to the model, by the test of `circuit_validity`?
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from cotinterp.figures.circuit_tests import rivals_figure
from cotinterp.mechanism.circuits.graph import Edge, Graph
from cotinterp.mechanism.circuits.kept import kept_metrics
from cotinterp.mechanism.circuits.validity import MARGIN, Circuit, Kept, equivalence_p, gap_p, random_circuits
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.model import HookedModel
from cotinterp.results import Result, wilson, with_labels

Verdict = Literal["supported", "partly supported", "not supported", "inconclusive"]
"""In the words of `cotinterp.claims`."""

Find = Callable[[HookedModel, Contrast], Collection[Edge]]
"""A way to choose a circuit of a model."""


class Rival(NamedTuple):
    """A circuit of some kind that was asked the same question: `random`, `swap`, `untrained`, or the name of a method.

    `distance`: mean size over examples of its difference from the model, in units of the mean gap. `passes`: whether it
    is equivalent to the model at the level; its p-value is not corrected, which is in favor of rivals.
    """

    kind: str
    edges: tuple[Edge, ...]
    distance: float
    p: float
    passes: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class RivalCensus(Result):
    """How many other circuits of no more edges pass the test that a circuit passes.

    Attributes:
        circuit: The circuit itself, asked the same.
        rivals: All others. Those of kind `untrained` are circuits of other models.
        gap_p: p-value of "the clean run beats the corrupted one in at most half of the examples".
    """

    circuit: Rival
    rivals: tuple[Rival, ...]
    gap_p: float
    level: float = 0.05
    labels: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def passing(self) -> tuple[Rival, ...]:
        """The rivals that pass, the closest to their model first."""
        return tuple(sorted((rival for rival in self.rivals if rival.passes), key=lambda rival: rival.distance))

    @property
    def rivals_passing(self) -> int:
        """How many rivals pass, those of untrained models included."""
        return len(self.passing)

    @property
    def verdict(self) -> Verdict:
        """Whether this circuit is *the* circuit, as far as the rivals that were tried can tell.

        `inconclusive` where there is no gap to explain or no rival was tried, `not supported` where the circuit itself
        does not pass, `partly supported` where it does and a rival does too, `supported` where none does: never beside
        a rival that passes.
        """
        if self.gap_p > self.level or not self.rivals:
            return "inconclusive"
        if not self.circuit.passes:
            return "not supported"
        return "partly supported" if self.rivals_passing else "supported"

    def frame(self) -> pd.DataFrame:
        """One row for the circuit and one for each kind of rival: rival, tried, passing, share, interval, closest.

        `share` of those tried that pass, with its 95% interval (Wilson); `closest` the smallest distance from the model
        in units of the mean gap. Swaps of one circuit are no independent draws: their interval is that of the swaps.
        """
        rows = []
        for kind in dict.fromkeys(rival.kind for rival in (self.circuit, *self.rivals)):
            of_kind = [rival for rival in (self.circuit, *self.rivals) if rival.kind == kind]
            passing = sum(rival.passes for rival in of_kind)
            low, high = wilson(passing, len(of_kind))
            found = {"rival": kind, "tried": len(of_kind), "passing": passing, "share": passing / len(of_kind)}
            closest = min(rival.distance for rival in of_kind)
            rows.append({**found, "ci_low": low, "ci_high": high, "closest": closest, "level": self.level})
        return with_labels(pd.DataFrame(rows), self.labels)

    def rival_frame(self) -> pd.DataFrame:
        """One row for each rival: its kind, distance, p, passes, and the edges that the circuit does not have."""
        own = set(self.circuit.edges)
        rows = [
            {
                **{"rival": rival.kind, "distance": rival.distance, "p": rival.p, "passes": rival.passes},
                "added": " ".join(edge.label for edge in rival.edges if edge not in own),
                "left_out": " ".join(edge.label for edge in self.circuit.edges if edge not in set(rival.edges)),
            }
            for rival in self.rivals
        ]
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """How many rivals of each kind pass."""
        named = ", ".join(str(value) for value in self.labels.values())
        title = f"Rivals of a circuit of {len(self.circuit.edges)} edges: {self.verdict}"
        return rivals_figure(self.frame(), title=f"{title} ({named})" if named else title)


def rival_census(
    model: HookedModel,
    contrast: Contrast,
    edges: Collection[Edge],
    rivals: Mapping[str, Collection[Edge]] | None = None,
    *,
    n_random: int = 100,
    n_swaps: int = 100,
    untrained: Sequence[HookedModel] = (),
    find: Find | None = None,
    margin: float = MARGIN,
    level: float = 0.05,
    generator: np.random.Generator | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> RivalCensus:
    """Which other circuits are equivalent to the model by the test that the circuit is held to.

    Rivals: `n_random` circuits of as many edges (`random_circuits`), `n_swaps` in which one edge is exchanged for one
    outside, those of `rivals` by the name of the method that chose them, and for each of `untrained` models the circuit
    that `find` chooses there (by default the same edges), held to that model. A rival that is the circuit itself, or a
    larger one that holds all of it, is none and is left out.

    A swap that passes says that the edge given up is not needed, or that the other does its work. No rival passing says
    nothing of those that were not tried: there are more circuits of ten edges than can be.

    Raises:
        ValueError: No edge, or a model that cannot run the contrast.
        KeyError: An edge that the model does not have.
    """
    graph = Graph.of(model)
    circuit = graph.check(edges)
    others = [
        (partial(kept_metrics, other, contrast), graph.check(circuit if find is None else find(other, contrast)))
        for other in untrained
    ]
    return census_of(
        partial(kept_metrics, model, contrast),
        graph,
        circuit,
        rivals,
        n_random=n_random,
        n_swaps=n_swaps,
        untrained=others,
        margin=margin,
        level=level,
        generator=generator,
        labels=labels,
    )


def census_of(
    kept: Kept,
    graph: Graph,
    edges: Collection[Edge],
    rivals: Mapping[str, Collection[Edge]] | None = None,
    *,
    n_random: int = 100,
    n_swaps: int = 100,
    untrained: Sequence[tuple[Kept, Circuit]] = (),
    margin: float = MARGIN,
    level: float = 0.05,
    generator: np.random.Generator | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> RivalCensus:
    """`rival_census` of whatever says what a circuit is worth; `untrained`: the same of others, with their circuits."""
    circuit, everything = graph.check(edges), frozenset(graph.edges)
    if not circuit:
        raise ValueError("a circuit needs at least one edge.")
    rng = np.random.default_rng(0) if generator is None else generator
    named = {kind: graph.check(chosen) for kind, chosen in (rivals or {}).items()}
    tried = [("random", one) for one in random_circuits(graph, len(circuit), n_random, rng)]
    tried += [("swap", swapped) for swapped in _swaps(graph, circuit, n_swaps, rng)]
    tried = [(kind, one) for kind, one in (*tried, *named.items()) if not one >= circuit]
    whole, corrupted, own, *scores = kept([everything, frozenset(), circuit, *(one for _, one in tried)])

    def asked(kind: str, one: Circuit, score: Float[np.ndarray, " n"], *ends: Float[np.ndarray, " n"]) -> Rival:
        unit, p = float(np.abs(ends[0] - ends[1]).mean()), equivalence_p(score, *ends, margin=margin)
        distance = float(np.abs(score - ends[0]).mean()) / unit if unit else np.nan
        return Rival(kind, tuple(sorted(one)), distance, p, p <= level)

    found = [asked(kind, one, score, whole, corrupted) for (kind, one), score in zip(tried, scores, strict=True)]
    for other, chosen in untrained:
        *ends, score = other([everything, frozenset(), chosen])
        found.append(asked("untrained", chosen, score, *ends))
    return RivalCensus(
        circuit=asked("circuit", circuit, own, whole, corrupted),
        rivals=tuple(found),
        gap_p=gap_p(whole, corrupted),
        level=level,
        labels=dict(labels or {}),
    )


def _swaps(graph: Graph, circuit: Circuit, n: int, rng: np.random.Generator) -> list[Circuit]:
    """Circuits with one edge exchanged for one outside, no two of them alike; fewer where there are not so many."""
    inside, outside = sorted(circuit), [edge for edge in graph.edges if edge not in circuit]
    total = len(inside) * len(outside)
    drawn = rng.permutation(total)[:n].tolist()
    pairs = [divmod(number, len(outside)) for number in drawn]
    return [circuit - {inside[i]} | {outside[j]} for i, j in pairs]
