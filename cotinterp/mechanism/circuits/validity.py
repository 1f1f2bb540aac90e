"""Whether a set of edges is the circuit of a behavior: five tests, each with its null and what passing it means.

The tests are those of Shi et al. 2024 (arXiv 2410.13032), and differ where the published code leaves something open.
What is compared is one number for each example, by default the logit difference, of runs in which the edges kept carry
what the clean run sends and all others what the corrupted run sends. The unit is the mean size of the gap between the
model (every edge kept) and the corrupted run (none kept).

| test | null hypothesis | passes by |
| --- | --- | --- |
| gap | the clean run beats the corrupted one in at most half of the examples: there is nothing to explain | rejecting |
| equivalence | in at most half of the examples is the circuit within `margin` of the model (composite) | rejecting |
| independence | without the circuit, the score is independent of the model's | not rejecting |
| minimality | some edge matters no more than an edge added at random (composite, a union over edges) | rejecting |
| sufficiency | the circuit is as good as one drawn at random, of as many edges | rejecting |
| partial necessity | to lose the circuit costs what losing one drawn from the edges outside of it costs | rejecting |

*Gap* is no test of the circuit but of whether there is anything to explain, and is asked first, at the whole level.

*Equivalence.* The published test asks that circuit and model beat each other equally often, and passes where that is
not rejected: with few examples everything passes, and a circuit that is always 0.001 worse fails (`preference` has it).
Here two one-sided sign tests are made at once: rejected is "the difference leaves -margin to margin in half of the
examples and more", which implies that the median lies within the margin on both sides. It says nothing of the mean.

*Independence* is the one test that passes by not rejecting, which shows little: with few examples, or a score that does
not vary, everything passes. Its p-value is not raised by the correction, which would make passing easier.

*Minimality.* One p-value for each edge. That *all* of them matter is shown when the largest is small, with no
correction (an intersection-union test; Berger 1982); which edges matter, taken one by one, asks for one: `edge_frame`
has Holm's. An edge that another one stands in for does not matter by this test, whatever it does.

*Sufficiency* is an exact rank test for a circuit drawn as the random ones are. A circuit chosen on the same examples
has an advantage: choose on some, test on others. *Partial necessity* ranks the circuit among as many edges drawn from
those outside of it: on a chain to lose one edge is to lose all, so that circuits drawn from the whole model, of which
many share an edge with this one, would cost as much. Partial: edges outside may be needed as well.

The p-values of the four tests that pass by rejecting are Holm's over the four. None of it says that the circuit is the
only one: `rival_census` asks that.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int
from scipy.stats import binom

from cotinterp.figures.circuit_tests import validity_figure
from cotinterp.mechanism.circuits.graph import Edge, Graph, Node
from cotinterp.mechanism.circuits.kept import kept_metrics
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import EPS, NoGapError
from cotinterp.mechanism.model import HookedModel
from cotinterp.results import Result, holm, with_labels

Circuit = frozenset[Edge]
Kept = Callable[[Sequence[Circuit]], Float[np.ndarray, "circuit example"]]
"""What each circuit is worth in each example: the score of the run in which its edges alone carry their clean value."""

Test = Literal["gap", "equivalence", "independence", "minimality", "sufficiency", "partial necessity"]
TESTS: tuple[Test, ...] = get_args(Test)
CORRECTED: tuple[Test, ...] = ("equivalence", "minimality", "sufficiency", "partial necessity")
"""Those that pass by rejecting, and share the level."""

MARGIN = 0.1
"""Share of the mean gap by which a circuit may differ from the model in an example and still count as equivalent."""
SAME_PREFERENCE = 0.1
"""How far from one half the published null lets the share of examples be in which the circuit beats the model."""
N_RANDOM = 99
"""Draws of each kind: Holm over four tests makes 0.04 of the smallest p-value that they can have, 0.01."""
N_PERMUTATIONS = 999

# In units of the gap: a hundred times the rounding of a float32 score. What differs by less is tied, and ties count
# against the circuit.
_ROUNDING = 1e-4
_TRIES = 50


@dataclass(frozen=True, eq=False, kw_only=True)
class CircuitValidity(Result):
    """The five tests of one circuit (see the module for nulls and directions), scores per example.

    `frame` has a row for each test, `edge_frame` one for each edge. `valid`: there is a gap, and all five pass.

    Attributes:
        edges: The circuit, in order; the axis `edge` follows it.
        n_edges: Edges of the whole graph.
        model, corrupted: The score with every edge kept, and with none.
        circuit, without: With the edges of the circuit alone, and with all others alone.
        without_edge: The circuit less each of its edges.
        random: Random circuits of as many edges.
        without_others: All edges but as many, drawn from those outside of the circuit (all of these if they are fewer).
        inflated, inflated_less: The circuit and one random path, and the same less one of the edges that this added.
        permuted: Normalized HSIC of `without` with permutations of `model`.
    """

    edges: tuple[Edge, ...]
    n_edges: int
    model: Float[np.ndarray, " example"]
    corrupted: Float[np.ndarray, " example"]
    circuit: Float[np.ndarray, " example"]
    without: Float[np.ndarray, " example"]
    without_edge: Float[np.ndarray, "edge example"]
    random: Float[np.ndarray, "draw example"]
    without_others: Float[np.ndarray, "other example"]
    inflated: Float[np.ndarray, "addition example"]
    inflated_less: Float[np.ndarray, "addition example"]
    permuted: Float[np.ndarray, " permutation"]
    level: float = 0.05
    margin: float = MARGIN
    labels: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def unit(self) -> float:
        """Mean size of the gap between the model and the corrupted run, in units of the score."""
        return float(np.abs(self.model - self.corrupted).mean())

    @property
    def faithfulness(self) -> float:
        """Share of the gap that the circuit alone keeps: 1 the model, 0 the corrupted run. NaN where it cancels."""
        gap = float((self.model - self.corrupted).mean())
        return float((self.circuit - self.corrupted).mean()) / gap if abs(gap) > _ROUNDING * self.unit else np.nan

    @property
    def passes(self) -> dict[Test, bool]:
        """Which tests pass at the level: after correction, and independence by not being rejected."""
        p = self._adjusted
        return {test: p[test] > self.level if test == "independence" else p[test] <= self.level for test in TESTS}

    @property
    def valid(self) -> bool:
        """Whether there is a gap to explain and all five tests pass."""
        return all(self.passes.values())

    @property
    def preference(self) -> tuple[float, float]:
        """The published test of equivalence: share of examples in which the circuit beats the model, and its p-value.

        Ties count half. The null is that the share is within `SAME_PREFERENCE` of one half (composite; the p-value is
        that at its edge), and passing is not to reject it.
        """
        difference = self.circuit - self.model
        tied = np.abs(difference) <= _ROUNDING * self.unit
        n, wins = len(tied), float((difference > 0)[~tied].sum() + tied.sum() / 2)
        away = abs(wins - n / 2)
        edge = binom(n, 0.5 + SAME_PREFERENCE)
        return wins / n, min(1.0, float(edge.sf(np.ceil(n / 2 + away) - 1) + edge.cdf(np.floor(n / 2 - away))))

    def frame(self) -> pd.DataFrame:
        """One row for each test: statistic, p, p_adjusted, level, passes, passes_by, n, note.

        Statistics, in units of the mean gap: `gap`, its median; `equivalence`, the median of circuit less model;
        `independence`, normalized HSIC in 0..1; `minimality`, what the edge that matters least changes; `sufficiency`,
        how far the circuit is from the model, mean size over examples; `partial necessity`, how much of the gap is lost
        without it. `n` counts examples, or random draws where the circuit is ranked among them.
        """
        rows = [
            {
                "test": test,
                "statistic": self._statistics[test],
                "p": self._p[test],
                "p_adjusted": self._adjusted[test],
                "level": self.level,
                "passes": self.passes[test],
                "passes_by": "not rejecting" if test == "independence" else "rejecting",
                "n": self._n[test],
                "note": self._notes.get(test, ""),
            }
            for test in TESTS
        ]
        return with_labels(pd.DataFrame(rows), self.labels)

    def edge_frame(self) -> pd.DataFrame:
        """One row for each edge of the circuit: what the circuit loses without it, p and Holm's p over all edges.

        `change` is the mean size of the change over examples, in units of the mean gap, whatever its sign;
        `random_change` the same of edges added at random, on average. To name single edges of many takes as many draws
        as edges / level.
        """
        edge_p = self._edge_p
        added = float(self._added.mean()) if len(self._added) else np.nan
        table = pd.DataFrame({"edge": [edge.label for edge in self.edges], "change": self._change})
        return with_labels(
            table.assign(random_change=added, p=edge_p, p_adjusted=holm(edge_p), n=len(self._added)), self.labels
        )

    def figure(self) -> go.Figure:
        """The p-value of every test against the level, by whether it passes."""
        named = ", ".join(str(value) for value in self.labels.values())
        title = f"Five tests of a circuit of {len(self.edges)} of {self.n_edges} edges{f' ({named})' if named else ''}"
        return validity_figure(self.frame(), title=title)

    def _size(self, change: Float[np.ndarray, "row example"]) -> Float[np.ndarray, " row"]:
        """Mean size of a change, in units of the mean gap."""
        size: Float[np.ndarray, " row"] = np.abs(change).mean(axis=1) / self.unit
        return size

    def _lost(self, score: Float[np.ndarray, "row example"]) -> Float[np.ndarray, " row"]:
        """How far a score has gone from the model's toward the corrupted run's, in units of the mean gap."""
        sign = np.sign(self.model - self.corrupted)
        lost: Float[np.ndarray, " row"] = (sign * (self.model - score)).mean(axis=1) / self.unit
        return lost

    @cached_property
    def _change(self) -> Float[np.ndarray, " edge"]:
        return self._size(self.circuit - self.without_edge)

    @cached_property
    def _added(self) -> Float[np.ndarray, " addition"]:
        return self._size(self.inflated - self.inflated_less)

    @cached_property
    def _edge_p(self) -> Float[np.ndarray, " edge"]:
        reached = (self._added[None] >= self._change[:, None] - _ROUNDING).sum(axis=1)
        p: Float[np.ndarray, " edge"] = (1 + reached) / (1 + len(self._added))
        return p

    @cached_property
    def _statistics(self) -> dict[Test, float]:
        difference, same = self.circuit - self.model, np.arange(len(self.model))[None]
        dependence = _dependence(self.without, self.model, same, rounding=_ROUNDING * self.unit)
        return {
            "gap": float(np.median(self.model - self.corrupted)) / self.unit,
            "equivalence": float(np.median(difference)) / self.unit,
            "independence": float(dependence[0]),
            "minimality": float(self._change.min()),
            "sufficiency": float(self._size(difference[None])[0]),
            "partial necessity": float(self._lost(self.without[None])[0]),
        }

    @cached_property
    def _p(self) -> dict[Test, float]:
        found = self._statistics
        distance, lost = self._size(self.random - self.model), self._lost(self.without_others)
        return {
            "gap": gap_p(self.model, self.corrupted),
            "equivalence": equivalence_p(self.circuit, self.model, self.corrupted, margin=self.margin),
            "independence": rank_p(self.permuted, found["independence"]),
            "minimality": float(self._edge_p.max()),
            "sufficiency": rank_p(-distance, -found["sufficiency"]),
            "partial necessity": rank_p(lost, found["partial necessity"]),
        }

    @cached_property
    def _adjusted(self) -> dict[Test, float]:
        """Holm's p-values of those that share the level, and the others as they are."""
        together = holm(np.array([self._p[test] for test in CORRECTED]))
        return self._p | dict(zip(CORRECTED, together.tolist(), strict=True))

    @property
    def _n(self) -> dict[Test, int]:
        drawn = {"minimality": len(self._added), "sufficiency": len(self.random)}
        drawn["partial necessity"] = len(self.without_others)
        return {test: drawn.get(test, len(self.model)) for test in TESTS}

    @property
    def _notes(self) -> dict[Test, str]:
        """What a reader should know of single tests."""
        found: dict[Test, str] = {}
        within = float((np.abs(self.circuit - self.model) < self.margin * self.unit).mean())
        found["equivalence"] = f"{within:.0%} of the examples within {self.margin:g} of the gap"
        if np.ptp(self.without) <= _ROUNDING * self.unit or np.ptp(self.model) <= _ROUNDING * self.unit:
            found["independence"] = "the score does not vary: nothing could be rejected"
        if not len(self._added):
            found["minimality"] = found["partial necessity"] = "no edge lies outside of the circuit: nothing to compare"
        else:
            least = self.edges[int(self._change.argmin())]
            found["minimality"] = f"{int((self._edge_p <= self.level).sum())} of {len(self.edges)}; least {least.label}"
        return found


def circuit_validity(
    model: HookedModel,
    contrast: Contrast,
    edges: Collection[Edge],
    *,
    n_random: int = N_RANDOM,
    level: float = 0.05,
    margin: float = MARGIN,
    generator: np.random.Generator | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> CircuitValidity:
    """The five tests of Shi et al. 2024 (arXiv 2410.13032) of a circuit, and whether there is a gap to explain.

    Edges that the circuit keeps carry what the clean run of `contrast` sends, the others what its corrupted run sends.
    Give examples on which the circuit was not chosen. `n_random`: draws of random circuits, and of edges added at
    random, 4 runs each; the default is the fewest that leave the four corrected tests something to find at 5%.
    `generator`: of the draws, by default one of seed 0.

    Passing all five does not show that no other circuit does (`rival_census`), nor that the circuit is right about
    other pairs, lengths or roles (`circuit_transfer`).

    Raises:
        ValueError: No edge, no draws, a level or margin outside 0..1, or a model that cannot run the contrast.
        KeyError: An edge that the model does not have.
        NoGapError: No example tells the two runs apart.
    """
    graph = Graph.of(model)
    return validity_of(
        partial(kept_metrics, model, contrast),
        graph,
        edges,
        n_random=n_random,
        level=level,
        margin=margin,
        generator=generator,
        labels=labels,
    )


def validity_of(
    kept: Kept,
    graph: Graph,
    edges: Collection[Edge],
    *,
    n_random: int = N_RANDOM,
    level: float = 0.05,
    margin: float = MARGIN,
    generator: np.random.Generator | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> CircuitValidity:
    """`circuit_validity` of whatever says what a circuit is worth: other scores, other ways to leave an edge out."""
    circuit, everything = graph.check(edges), frozenset(graph.edges)
    if not circuit:
        raise ValueError("a circuit needs at least one edge.")
    if n_random < 1:
        raise ValueError(f"n_random must be positive, got {n_random}; {N_RANDOM} leave something to find at 5%.")
    for name, share in {"level": level, "margin": margin}.items():
        if not 0 < share < 1:
            raise ValueError(f"{name} must lie strictly between 0 and 1, got {share}.")
    rng = np.random.default_rng(0) if generator is None else generator
    ordered = tuple(sorted(circuit))
    outside = everything - circuit
    drawn = random_circuits(graph, len(circuit), n_random, rng)
    others, larger = [], []
    if outside:
        others = random_circuits(graph, min(len(circuit), len(outside)), n_random, rng, outside=circuit)
        larger = _inflated(graph, circuit, n_random, rng)
    asked: dict[str, Sequence[Circuit]] = {
        "ends": (everything, frozenset(), circuit, outside),
        "without_edge": [circuit - {edge} for edge in ordered],
        "random": drawn,
        "without_others": [everything - other for other in others],
        "inflated": [inflated for inflated, _ in larger],
        "inflated_less": [inflated - {edge} for inflated, edge in larger],
    }
    scores = kept([one for group in asked.values() for one in group])
    pieces = np.split(scores, np.cumsum([len(group) for group in asked.values()])[:-1])
    found = dict(zip(asked, pieces, strict=True))
    whole, corrupted, alone, without = found.pop("ends")
    gap = np.abs(whole - corrupted)
    if not gap.max() > EPS:
        raise NoGapError(
            f"the model tells clean from corrupted in none of {len(gap)} examples (largest gap {gap.max():.2g}): there "
            "is nothing for a circuit to explain. Are they the same tokens, as far as the readout?"
        )
    orders = np.stack([rng.permutation(len(whole)) for _ in range(N_PERMUTATIONS)])
    return CircuitValidity(
        edges=ordered,
        n_edges=len(everything),
        model=whole,
        corrupted=corrupted,
        circuit=alone,
        without=without,
        permuted=_dependence(without, whole, orders, rounding=_ROUNDING * float(gap.mean())),
        level=level,
        margin=margin,
        labels=dict(labels or {}),
        **found,
    )


def gap_p(model: Float[np.ndarray, " example"], corrupted: Float[np.ndarray, " example"]) -> float:
    """One-sided sign test of "the clean run scores higher than the corrupted one in at most half of the examples"."""
    unit = float(np.abs(model - corrupted).mean())
    return _more_than_half(model - corrupted > _ROUNDING * unit)


def equivalence_p(
    circuit: Float[np.ndarray, " example"],
    model: Float[np.ndarray, " example"],
    corrupted: Float[np.ndarray, " example"],
    *,
    margin: float = MARGIN,
) -> float:
    """p-value of "the circuit is within `margin` of the model in at most half of the examples": small if equivalent.

    The margin is a share of the mean size of the gap between model and corrupted run. 1 where there is no gap.
    """
    unit = float(np.abs(model - corrupted).mean())
    return _more_than_half(np.abs(circuit - model) < margin * unit)


def _more_than_half(holds: Bool[np.ndarray, " example"]) -> float:
    return float(binom(len(holds), 0.5).sf(int(holds.sum()) - 1))


def rank_p(null: Float[np.ndarray, " draw"], observed: float) -> float:
    """The share of draws, and the observed one among them, that are at least as large; ties count as larger."""
    return float((1 + (null >= observed - _ROUNDING).sum()) / (1 + len(null)))


def random_circuits(
    graph: Graph, n_edges: int, n: int, rng: np.random.Generator, *, outside: Circuit = frozenset()
) -> list[Circuit]:
    """`n` circuits of so many edges, drawn as random paths from `embed` to `logits`; no edge is one of those `outside`.

    Edges drawn one by one would mostly lie on no way from the input to the logits, carry nothing, and be easy to beat.
    The last edges of a circuit are single ones where no path drawn has room. ValueError where there are not so many.
    """
    allowed = [edge for edge in graph.edges if edge not in outside]
    if not 0 < n_edges <= len(allowed):
        raise ValueError(f"{n_edges} edges of {len(allowed)}: give 1 to {len(allowed)}.")
    into = _into(allowed)
    return [_random_circuit(allowed, into, n_edges, rng) for _ in range(n)]


def _random_circuit(
    allowed: Sequence[Edge], into: Mapping[Node, Sequence[Edge]], n_edges: int, rng: np.random.Generator
) -> Circuit:
    found: Circuit = frozenset()
    misses = 0
    while len(found) < n_edges and misses < _TRIES:
        longer = found | _random_path(into, rng)
        fits = len(found) < len(longer) <= n_edges
        found, misses = (longer, 0) if fits else (found, misses + 1)
    if len(found) == n_edges:
        return found
    left = [edge for edge in allowed if edge not in found]
    return found | {left[i] for i in rng.permutation(len(left))[: n_edges - len(found)]}


def _inflated(graph: Graph, circuit: Circuit, n: int, rng: np.random.Generator) -> list[tuple[Circuit, Edge]]:
    """The circuit with a random path that has edges outside of it, and one of those edges; as often as asked."""
    into, left = _into(graph.edges), [edge for edge in graph.edges if edge not in circuit]
    found = []
    for _ in range(n):
        paths = (_random_path(into, rng) - circuit for _ in range(_TRIES))
        added = sorted(next(filter(None, paths), None) or [left[int(rng.integers(len(left)))]])
        found.append((circuit.union(added), added[int(rng.integers(len(added)))]))
    return found


def _into(edges: Sequence[Edge]) -> Mapping[Node, Sequence[Edge]]:
    """The edges into each node."""
    found: dict[Node, list[Edge]] = {}
    for edge in edges:
        found.setdefault(edge.dest, []).append(edge)
    return found


def _random_path(into: Mapping[Node, Sequence[Edge]], rng: np.random.Generator) -> Circuit:
    """A way from the logits back to `embed`, by an edge into each node drawn evenly; none where it ends elsewhere."""
    path, node = [], Node("logits")
    while node in into:
        path.append(into[node][int(rng.integers(len(into[node])))])
        node = path[-1].src
    return frozenset(path) if node.kind == "embed" else frozenset()


def _dependence(
    x: Float[np.ndarray, " example"],
    y: Float[np.ndarray, " example"],
    orders: Int[np.ndarray, "order example"],
    *,
    rounding: float,
) -> Float[np.ndarray, " order"]:
    """Normalized HSIC of `x` with `y` in each order (Gretton et al. 2005, 2008): 0 if independent, 1 if they are equal.

    Gaussian kernels as wide as the median distance between examples; the biased statistic over the root of those of
    each with itself. 0 where one of the two does not vary by more than `rounding`.
    """
    left, right = (_centered_kernel(np.round(values / rounding)) for values in (x, y))
    size = np.sqrt(float((left**2).sum() * (right**2).sum()))
    if not size:
        return np.zeros(len(orders))
    return np.array([float((left * right[np.ix_(order, order)]).sum()) / size for order in orders])


def _centered_kernel(x: Float[np.ndarray, " example"]) -> Float[np.ndarray, "example example"]:
    distance = np.abs(x[:, None] - x[None])
    apart = distance[distance > 0]
    if not len(apart):
        return np.zeros_like(distance)
    kernel = np.exp(-((distance / np.median(apart)) ** 2) / 2)
    centered: Float[np.ndarray, "example example"] = kernel - kernel.mean(axis=0) - kernel.mean(axis=1, keepdims=True)
    centered += kernel.mean()
    return centered
