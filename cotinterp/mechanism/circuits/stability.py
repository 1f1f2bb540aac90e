"""How much of a circuit hangs on which problems were drawn, on which run was taken, and on which pairs it was asked.

The edges of a circuit are the first of a ranking, and rankings vary (Méloux et al. 2025, arXiv 2510.00845):
`circuit_stability` draws the problems anew, ranks again, and says how much two such circuits share, beside what two
random ones would; the same between runs of other seeds. `circuit_transfer` takes one circuit as it is to other
contrasts: other lengths, other roles, edited traces.

A stable circuit need not be right, nor a right one stable: of two edges that stand in for one another either may come
first. Heads have no identity across seeds: two runs may share a mechanism whose edges have other names, so that the
agreement by name of two runs is a lower bound.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Int, Shaped
from scipy.stats import hypergeom, kendalltau, spearmanr

from cotinterp.figures.circuit_tests import stability_figure, transfer_figure
from cotinterp.mechanism.circuits.graph import Edge, Graph
from cotinterp.mechanism.circuits.kept import kept_metrics
from cotinterp.mechanism.circuits.validity import random_circuits, rank_p
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import kept_pairs, normalized_effects
from cotinterp.mechanism.model import HookedModel
from cotinterp.results import Result, with_labels

Scores = Float[np.ndarray, "edge example"]


@dataclass(frozen=True, eq=False, kw_only=True)
class CircuitStability(Result):
    """How much the first edges of a ranking agree between draws of the problems, and between runs.

    Attributes:
        edges: What is ranked; the axis `edge` follows it.
        scores: Of every run by name, a score for each edge and example. The ranking is that of the means.
        sizes: How many first edges make a circuit.
        absolute: Whether edges are ranked by the size of their mean score, or by the mean with its sign.
        problems: For every run, the number of the problem that each example belongs to: whole problems are drawn.
        n_pairs: Pairs of draws.
    """

    edges: tuple[Edge, ...]
    scores: Mapping[str, Scores]
    sizes: tuple[int, ...]
    absolute: bool = True
    problems: Mapping[str, Shaped[np.ndarray, " example"]] = field(default_factory=dict)
    n_pairs: int = 50
    seed: int = 0
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row for each run and size, between draws of its problems, and for each two runs and size.

        `jaccard`: edges that both circuits have, of those that either has. `kendall` and `spearman`: agreement in rank,
        over all edges that either has (two circuits that share nothing are below 0). Between draws each is the mean
        over pairs of draws, between runs that of the whole samples; `ci_low` and `ci_high` hold 95% of the pairs of
        draws, and `chance` is the mean of two random circuits of that size. `n`: examples of the smaller run.
        """
        rows: list[dict[str, Any]] = []
        for run in self.scores:
            rows += self._compared("draws", run, run)
        for run, other in combinations(self.scores, 2):
            rows += self._compared("runs", run, other)
        return with_labels(pd.DataFrame(rows), self.labels)

    def edge_frame(self, size: int | None = None) -> pd.DataFrame:
        """One row for each run and edge that is among the first `size` in any draw, by default the first size.

        `score` is the mean over examples, `cv` its standard deviation over draws as a share of the size of that mean,
        `selected` the share of the draws in which the edge is among the first.
        """
        size = self.sizes[0] if size is None else size
        rows: list[dict[str, Any]] = []
        for run, scores in self.scores.items():
            means, drawn = scores.mean(axis=1), self._drawn[run]
            chosen = np.zeros(len(self.edges))
            for one in drawn:
                chosen[self._first(one, size)] += 1
            chosen /= len(drawn)
            spread = drawn.std(axis=0, ddof=1)
            for i in np.argsort(-chosen, kind="stable"):
                if chosen[i] > 0:
                    cv = spread[i] / abs(means[i]) if means[i] else np.nan
                    found = {"run": run, "edge": self.edges[i].label, "size": size, "score": means[i], "cv": cv}
                    rows.append({**found, "selected": chosen[i], "n": scores.shape[1]})
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """Agreement by size, between draws and between runs, with that of random circuits."""
        named = ", ".join(str(value) for value in self.labels.values())
        return stability_figure(
            self.frame(), title=f"How much two circuits of the first edges share{f' ({named})' if named else ''}"
        )

    @cached_property
    def _drawn(self) -> dict[str, Float[np.ndarray, "draw edge"]]:
        """The mean scores of every run over problems drawn with replacement, two draws a pair."""
        rng, found = np.random.default_rng(self.seed), {}
        for run, scores in self.scores.items():
            number = self.problems.get(run, np.arange(scores.shape[1]))
            _, of = np.unique(number, return_inverse=True)
            n = int(of.max()) + 1
            times = rng.multinomial(n, np.full(n, 1 / n), size=2 * self.n_pairs)[:, of.reshape(-1)]
            found[run] = (times @ scores.T) / times.sum(axis=1, keepdims=True)
        return found

    def _compared(self, comparison: str, run: str, other: str) -> Iterator[dict[str, Any]]:
        """The rows of one comparison, a size each."""
        n = min(self.scores[run].shape[1], self.scores[other].shape[1])
        firsts, seconds = self._drawn[run][::2], self._drawn[other][1::2]
        for size in self.sizes:
            pairs = [self._agreement(a, b, size) for a, b in zip(firsts, seconds, strict=True)]
            overlap = np.array([pair["jaccard"] for pair in pairs])
            whole = self._agreement(self.scores[run].mean(axis=1), self.scores[other].mean(axis=1), size)
            table = pd.DataFrame(pairs if comparison == "draws" else [whole])
            low, high = np.quantile(overlap, [0.025, 0.975])
            yield {
                **{"comparison": comparison, "run": run, "other": other, "size": size},
                **{"jaccard": float(table["jaccard"].mean()), "ci_low": float(low), "ci_high": float(high)},
                "chance": chance_jaccard(len(self.edges), size),
                **{name: float(table[name].mean()) for name in ("kendall", "spearman")},
                "n": n,
            }

    def _first(self, means: Float[np.ndarray, " edge"], size: int) -> Int[np.ndarray, " size"]:
        return np.argsort(-(np.abs(means) if self.absolute else means), kind="stable")[:size]

    def _agreement(
        self, one: Float[np.ndarray, " edge"], other: Float[np.ndarray, " edge"], size: int
    ) -> dict[str, float]:
        a, b = self._first(one, size), self._first(other, size)
        either = np.union1d(a, b)
        x, y = (np.abs(means[either]) if self.absolute else means[either] for means in (one, other))
        varies = len(either) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0
        return {
            "jaccard": len(np.intersect1d(a, b)) / len(either),
            "kendall": float(kendalltau(x, y).statistic) if varies else np.nan,
            "spearman": float(spearmanr(x, y).statistic) if varies else np.nan,
        }


def circuit_stability(
    scores: Mapping[str, Scores],
    edges: Sequence[Edge],
    *,
    sizes: Sequence[int] = (10, 20, 50),
    absolute: bool = True,
    problems: Mapping[str, Shaped[np.ndarray, " example"]] | None = None,
    n_pairs: int = 50,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> CircuitStability:
    """Agreement of the first edges between draws of the problems of each run, and between runs.

    `scores`: by the name of a run (a seed, a method), what each of `edges` scores in each example. `problems`: where
    several examples are of one problem, its number for each, by run; they are drawn together, for they do not vary
    independently. `absolute`: whether a large negative score ranks high; the two rules give different circuits.

    Raises:
        ValueError: No run, scores that are not finite or of another number of edges, fewer than two problems, or sizes
            that the edges do not have.
    """
    if not scores:
        raise ValueError("no scores: give a table of edges by examples for at least one run.")
    for run, table in scores.items():
        if len(table) != len(edges):
            raise ValueError(f"{len(table)} rows of scores in run {run!r} for {len(edges)} edges: give one for each.")
        if table.shape[1] < 2 or not np.isfinite(table).all():
            raise ValueError(f"run {run!r} needs finite scores of two examples or more; it has shape {table.shape}.")
        number = (problems or {}).get(run)
        if number is not None and (len(number) != table.shape[1] or len(np.unique(number)) < 2):
            raise ValueError(f"problems of run {run!r}: give {table.shape[1]} numbers, two or more different.")
    if wrong := [size for size in sizes if not 0 < size <= len(edges)]:
        raise ValueError(f"sizes {wrong} of {len(edges)} edges: give 1 to {len(edges)}.")
    return CircuitStability(
        edges=tuple(edges),
        scores={run: np.asarray(table, dtype=np.float64) for run, table in scores.items()},
        sizes=tuple(sizes),
        absolute=absolute,
        problems=dict(problems or {}),
        n_pairs=n_pairs,
        seed=seed,
        labels=dict(labels or {}),
    )


def chance_jaccard(n_edges: int, size: int) -> float:
    """The mean Jaccard index of two circuits of `size` edges drawn from `n_edges` one by one."""
    shared = np.arange(size + 1)
    return float((hypergeom(n_edges, size, size).pmf(shared) * shared / (2 * size - shared)).sum())


@dataclass(frozen=True, eq=False, kw_only=True)
class CircuitTransfer(Result):
    """What one circuit is worth on contrasts on which it was not found, scores per example.

    Attributes:
        scores: For each contrast by name, the score of (the model, the corrupted run, the circuit, all other edges,
            random circuits of as many edges ...), a row each.
    """

    edges: tuple[Edge, ...]
    scores: Mapping[str, Float[np.ndarray, "run example"]]
    seed: int = 0
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row for each contrast.

        `faithfulness`: share of the gap between corrupted run and model that the circuit alone keeps, with its 95%
        interval over examples; above 1 where what was left out worked against it. `without`: the same of all other
        edges. `random`, `random_top`: of random circuits, mean and 95th percentile; `p`: the share of them that is at
        least as close to the model. Missing where the contrast has no gap; `note` says why. `n`: examples with a gap.
        """
        rows = []
        for name, runs in self.scores.items():
            gap = runs[0] - runs[1]
            note = ""
            try:
                kept_pairs(runs[2:] - runs[1], gap)
            except ValueError as error:
                note = str(error)
            found = normalized_effects(runs[2:] - runs[1], gap, seed=self.seed)
            circuit, without, random = found.effect[0], found.effect[1], found.effect[2:]
            drawn = bool(len(random)) and not note
            rows.append(
                {
                    "contrast": name,
                    "size": len(self.edges),
                    **{"faithfulness": circuit, "ci_low": found.ci_low[0], "ci_high": found.ci_high[0]},
                    "without": without,
                    "random": float(random.mean()) if drawn else np.nan,
                    "random_top": float(np.quantile(random, 0.95)) if drawn else np.nan,
                    "p": rank_p(-np.abs(random - 1), -abs(circuit - 1)) if drawn else np.nan,
                    "n": found.n,
                    "note": note,
                }
            )
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """Faithfulness on every contrast, of the circuit, of all other edges, and of random circuits."""
        named = ", ".join(str(value) for value in self.labels.values())
        title = f"A circuit of {len(self.edges)} edges on other contrasts{f' ({named})' if named else ''}"
        return transfer_figure(self.frame(), title=title)


def circuit_transfer(
    model: HookedModel,
    contrasts: Mapping[str, Contrast],
    edges: Collection[Edge],
    *,
    n_random: int = 19,
    generator: np.random.Generator | None = None,
    labels: Mapping[str, str | int] | None = None,
) -> CircuitTransfer:
    """What a circuit that was found on one contrast keeps of the gap of others: other lengths, roles, edited traces.

    Edges are those between components, at whatever position: a circuit transfers to another role or length where the
    same components carry it there. Low faithfulness says that other edges are needed; high faithfulness not that no
    other edges would do. The same random circuits, of as many edges, are set beside it everywhere.

    Raises:
        ValueError: No contrast, or a model that cannot run one of them.
        KeyError: An edge that the model does not have.
    """
    if not contrasts:
        raise ValueError("no contrasts: give each by a name, such as {'k = 5': Contrast.from_pairs(pairs)}.")
    graph = Graph.of(model)
    circuit, everything = graph.check(edges), frozenset(graph.edges)
    rng = np.random.default_rng(0) if generator is None else generator
    drawn = random_circuits(graph, len(circuit), n_random, rng)
    asked = [everything, frozenset[Edge](), circuit, everything - circuit, *drawn]
    return CircuitTransfer(
        edges=tuple(sorted(circuit)),
        scores={name: kept_metrics(model, contrast, asked) for name, contrast in contrasts.items()},
        labels=dict(labels or {}),
    )
