"""How often circuits pass the five tests that are none, and how often those pass that are known.

Nulls: random circuits of untrained models and of handmade ones, circuits chosen in untrained models by a greedy search
on other examples, the true edges of a handmade model whose weights were then shuffled, and true circuits padded with
edges that do nothing. None is a circuit, or none of a behavior, and they should pass at no more than the level. The
true circuits, in models with a little noise on every weight, should pass always.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from cotinterp.calibration.ground_truth import NOISE, GroundTruth, untrained
from cotinterp.figures import lines
from cotinterp.mechanism.circuits import Graph, greedy_circuit
from cotinterp.mechanism.circuits.validity import TESTS, Circuit, circuit_validity, random_circuits
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import NoGapError
from cotinterp.mechanism.model import HookedModel
from cotinterp.models.build import Bridge
from cotinterp.models.handmade import reader
from cotinterp.results import Result, wilson
from cotinterp.studies.protocol import head_pairs
from cotinterp.sweeps.pool import parallel_map
from cotinterp.training.loop import torch_threads

TASK, REGIME, K = "z6", "totals", 3
EXAMPLES = 24
"""Half of them to choose a circuit on, half to test it on."""
RANDOM_SIZE, PADDING = 10, 3
REDRAWN = 8
"""Draws of random edges of a handmade model, of which the first that are not its true ones are a null."""
TRUE = ("embed->L1H0.v", "L1H0->L1.mlp", "L1.mlp->logits")
"""The way of a written total in the reader."""
ALL = "all"

Case = Callable[[int, float], dict[str, bool]]
"""The seed of a model and the level; which tests its circuit passes."""


@dataclass(frozen=True)
class CircuitRates(Result):
    """Which tests the circuits of many models pass: `passes` by case, one dictionary of tests for each model.

    A model without any gap passes nothing. That nulls fail in these models does not show that they would in larger
    ones, nor that a circuit chosen on the examples that it is tested on would.
    """

    passes: Mapping[str, Sequence[Mapping[str, bool]]]
    level: float = 0.05

    def frame(self) -> pd.DataFrame:
        """One row for each case and test, `all` for all of them: passing, n, share, 95% interval (Wilson), level."""
        rows = []
        for case, models in self.passes.items():
            for test in models[0]:
                passing = sum(model[test] for model in models)
                found = {"case": case, "test": test, "passing": passing, "n": len(models)}
                low, high = wilson(passing, len(models))
                rows.append({**found, "share": passing / len(models), "ci_low": low, "ci_high": high})
        return pd.DataFrame(rows).assign(level=self.level)

    def figure(self) -> go.Figure:
        """Share of models whose circuit passes, by test and case, with the level."""
        figure = lines(
            self.frame(),
            x="test",
            y="share",
            low="ci_low",
            high="ci_high",
            color="case",
            bounds=(0.0, 1.0),
            references={f"level {self.level:g}": self.level},
            title="How often circuits pass that are none, and those that are known",
            y_title="share of models whose circuit passes",
            hover=["passing", "n"],
        )
        return figure.update_traces(mode="markers")


def circuit_rates(
    n: int = 200, *, cases: Sequence[str] | None = None, level: float = 0.05, jobs: int = 0
) -> CircuitRates:
    """The five tests of `n` circuits of each of `cases`, by default all, one to a model.

    `jobs`: processes side by side, one thread each; 0: none but this one.

    Raises:
        ValueError: Unknown cases, or no models.
        RuntimeError: A model could not be tested.
    """
    chosen = tuple(CASES) if cases is None else tuple(cases)
    if unknown := [case for case in chosen if case not in CASES]:
        raise ValueError(f"unknown cases {unknown}: {list(CASES)}.")
    if n < 1:
        raise ValueError(f"{n} models: at least one is needed")
    found: dict[str, list[dict[str, bool]]] = {}
    for case in chosen:
        work = partial(_one, case, level)
        for seed, result in enumerate(parallel_map(work, range(n), jobs=jobs)):
            if result.value is None:
                raise RuntimeError(f"model {seed} of {case!r} could not be tested: {result.error}")
            found.setdefault(case, []).append(result.value)
    return CircuitRates(found, level)


def _one(case: str, level: float, seed: int) -> dict[str, bool]:
    with torch_threads(1):
        return CASES[case](seed, level)


def _passes(model: HookedModel, contrast: Contrast, edges: Circuit, seed: int, level: float) -> dict[str, bool]:
    try:
        result = circuit_validity(model, contrast, edges, level=level, generator=np.random.default_rng(seed))
    except NoGapError:
        return dict.fromkeys((*TESTS, ALL), False)
    return {**{str(test): passes for test, passes in result.passes.items()}, ALL: result.valid}


def _pairs(subject: GroundTruth) -> tuple[Contrast, Contrast]:
    """Pairs of one written total to choose on, and others to test on."""
    contrast = Contrast.from_pairs(head_pairs(subject, EXAMPLES, k=K))
    half = len(contrast) // 2
    return contrast.select(slice(half)), contrast.select(slice(half, None))


def _untrained(seed: int, level: float, *, chosen: bool) -> dict[str, bool]:
    subject = untrained(TASK, REGIME, seed, width=16)
    known, new = _pairs(subject)
    if not chosen:
        (edges,) = random_circuits(Graph.of(subject.model), RANDOM_SIZE, 1, np.random.default_rng(seed))
        return _passes(subject.model, new, edges, seed, level)
    try:
        edges = greedy_circuit(subject.model, known)
    except NoGapError:
        edges = frozenset()
    return _passes(subject.model, new, edges, seed, level) if edges else dict.fromkeys((*TESTS, ALL), False)


def _handmade(seed: int, level: float, *, edges: str, shuffled: bool = False) -> dict[str, bool]:
    model, rng = reader(TASK, REGIME, (2, K + 1), decoy=bool(seed % 2)), np.random.default_rng(seed)
    _disturb(model, seed, shuffled=shuffled)
    graph = Graph.of(model)
    circuit = graph.parse(TRUE)
    if edges == "random":
        drawn = random_circuits(graph, len(TRUE), REDRAWN, rng)
        circuit = next(one for one in drawn if one != circuit)
    elif edges == "padded":
        (idle,) = random_circuits(graph, PADDING, 1, rng, outside=circuit)
        circuit |= idle
    _, new = _pairs(untrained(TASK, REGIME, seed, width=16))
    return _passes(model, new, circuit, seed, level)


def _disturb(model: Bridge, seed: int, *, shuffled: bool) -> None:
    """A little noise on every weight, or all entries of every weight in another order."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if shuffled:
                weight.copy_(weight.flatten()[torch.randperm(weight.numel(), generator=generator)].view_as(weight))
            else:
                weight.add_(NOISE * torch.randn(weight.shape, generator=generator))


CASES: Mapping[str, Case] = {
    "untrained, random edges": partial(_untrained, chosen=False),
    "untrained, chosen edges": partial(_untrained, chosen=True),
    "reader, random edges": partial(_handmade, edges="random"),
    "reader, padded": partial(_handmade, edges="padded"),
    "reader with shuffled weights": partial(_handmade, edges="true", shuffled=True),
    "reader, true edges": partial(_handmade, edges="true"),
}
"""Nulls, and last the truth."""
