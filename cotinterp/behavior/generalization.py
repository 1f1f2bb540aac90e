"""How much of what a model can do on its training problems it can do on problems that it never saw.

The generalization ratio is (held-out - chance) / (train - chance): 1 where held-out problems are answered as well as
training problems, 0 where nothing but the training problems themselves was learned. It separates a lookup table from
an algorithm where training accuracy does not: both may be perfect there. A ratio near 1 says nothing about which
algorithm; one near 0 nothing about why (too little data is memory as well). Beside it stand what the nearest training
problem and the most frequent answer are worth, and the ratio at fixed marginals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from cotinterp.behavior.accuracy import AccuracyResult, Output
from cotinterp.behavior.baselines import marginal_credit, neighbor_credit
from cotinterp.behavior.labels import described
from cotinterp.behavior.marginals import Raked, rake
from cotinterp.results.intervals import Interval, wilson
from cotinterp.results.plots import lines
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem


@dataclass(frozen=True)
class Generalization:
    """One number of operands: accuracies, baselines, and the ratio.

    Attributes:
        k: Number of operands.
        n_train, n_heldout: Problems measured on each side.
        train, heldout: Free-running accuracy on each side.
        chance: Share of the most frequent training answer among all problems known of this length: what always giving
            it is worth in the long run. Not its share on the held-out side alone: where the two sides make up all
            problems, what is frequent on one is rare on the other, and a guesser would seem to generalize.
        marginal: What that answer is in fact worth on the held-out problems.
        nearest: What the answer of the nearest training problem is worth there.
        reordered: The same with operands compared in any order; NaN where the task does not commute.
        matched: Held-out accuracy with the operands and answers weighted to be as frequent as in training.
        raked: Those weights' discrepancy and effective n.
    """

    k: int
    n_train: int
    n_heldout: int
    train: float
    heldout: float
    chance: float
    marginal: float
    nearest: float
    reordered: float
    matched: float
    raked: Raked

    @property
    def ratio(self) -> float:
        """(held-out - chance) / (train - chance); NaN where training accuracy is not above chance."""
        return (self.heldout - self.chance) / (self.train - self.chance) if self.interval_known else float("nan")

    @property
    def interval(self) -> Interval:
        """95% interval of the ratio over problems (`ratio_interval`); NaN where the ratio is."""
        return ratio_interval((self.heldout, self.n_heldout), (self.train, self.n_train), self.chance)

    @property
    def matched_ratio(self) -> float:
        """The ratio with `matched` in the place of the plain held-out accuracy."""
        return (self.matched - self.chance) / (self.train - self.chance) if self.interval_known else float("nan")

    @property
    def interval_known(self) -> bool:
        """Whether the training accuracy is above chance, beyond its interval."""
        return wilson(round(self.train * self.n_train), self.n_train).low > self.chance


@dataclass(frozen=True)
class GeneralizationResult(Result):
    """The generalization ratio of one trained model for each number of operands."""

    cells: tuple[Generalization, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each k: task, regime, seed, k, n_train, n_heldout, train, heldout, chance, marginal, nearest,
        reordered, ratio, ci_low, ci_high, matched, matched_ratio, discrepancy, effective_n."""
        rows = [
            {
                "k": cell.k,
                "n_train": cell.n_train,
                "n_heldout": cell.n_heldout,
                "train": cell.train,
                "heldout": cell.heldout,
                "chance": cell.chance,
                "marginal": cell.marginal,
                "nearest": cell.nearest,
                "reordered": cell.reordered,
                "ratio": cell.ratio,
                "ci_low": cell.interval.low,
                "ci_high": cell.interval.high,
                "matched": cell.matched,
                "matched_ratio": cell.matched_ratio,
                "discrepancy": cell.raked.discrepancy,
                "effective_n": cell.raked.effective_n,
            }
            for cell in self.cells
        ]
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self) -> go.Figure:
        """Held-out accuracy by number of operands beside what each baseline is worth on the same problems."""
        names = {"heldout": "model", "nearest": "nearest training problem", "marginal": "most frequent answer"}
        table = self.frame().melt(id_vars=["k", "n_heldout"], value_vars=list(names), var_name="answers")
        intervals = [
            wilson(round(value * n), n) for value, n in zip(table["value"], table["n_heldout"].astype(int), strict=True)
        ]
        return lines(
            table.assign(
                answers=pd.Categorical(table["answers"].map(names), list(names.values())),
                ci_low=[interval.low for interval in intervals],
                ci_high=[interval.high for interval in intervals],
            ),
            x="k",
            y="value",
            low="ci_low",
            high="ci_high",
            color="answers",
            bounds=(0.0, 1.0),
            title=f"Held-out problems, model against memory: {described(self.labels)}",
            x_title="number of operands (K)",
            y_title="share of answers that are right",
            hover=["n_heldout"],
        )


def generalization(task: Task, accuracy: AccuracyResult, trained_on: Sequence[Problem]) -> GeneralizationResult:
    """The ratio and its baselines for every number of operands that both sides were measured on.

    Args:
        task: The task of the run.
        accuracy: Its free-running accuracy on `train` and `heldout` problems.
        trained_on: All its training problems: what a memory could hold.

    Raises:
        ValueError: No number of operands was measured on both sides, or a held-out problem was trained on.
    """
    train, heldout = accuracy.of_split("train"), accuracy.of_split("heldout")
    known = set(trained_on)
    leaked = [output.problem.operands for output in heldout if output.problem in known]
    if leaked:
        raise ValueError(f"{len(leaked)} held-out problems were trained on, e.g. operands {leaked[0]}: the split leaks")
    lengths = sorted({x.problem.k for x in train} & {x.problem.k for x in heldout})
    if not lengths:
        raise ValueError("no number of operands was measured on both sides of the split; evaluate more problems")
    cells = [_cell(task, k, _at(train, k), _at(heldout, k), trained_on) for k in lengths]
    return GeneralizationResult(tuple(cells), accuracy.labels)


def ratio_interval(heldout: tuple[float, int], train: tuple[float, int], chance: float) -> Interval:
    """95% interval of (held-out - chance) / (train - chance), each accuracy given with its number of problems.

    The two Wilson intervals are combined by MOVER for ratios (Donner & Zou 2012, Stat Methods Med Res 21:347), which
    has width also where both accuracies are 1. `chance` counts as known. (NaN, NaN) where the training accuracy is not
    above chance beyond its own interval.
    """
    (low_top, high_top), top = _centered(heldout, chance)
    (low_base, high_base), base = _centered(train, chance)
    if not low_base > 0:
        return Interval(float("nan"), float("nan"))
    product = top * base
    below = max(product**2 - low_top * high_base * (2 * top - low_top) * (2 * base - high_base), 0.0)
    above = max(product**2 - high_top * low_base * (2 * top - high_top) * (2 * base - low_base), 0.0)
    low = (product - below**0.5) / (high_base * (2 * base - high_base))
    high = (product + above**0.5) / (low_base * (2 * base - low_base))
    return Interval(float(low), float(high))


def _centered(accuracy: tuple[float, int], chance: float) -> tuple[tuple[float, float], float]:
    rate, n = accuracy
    low, high = wilson(round(rate * n), n)
    return (low - chance, high - chance), rate - chance


def _at(outputs: Sequence[Output], k: int) -> list[Output]:
    return [output for output in outputs if output.problem.k == k]


def _cell(
    task: Task, k: int, train: Sequence[Output], heldout: Sequence[Output], trained_on: Sequence[Problem]
) -> Generalization:
    asked = [output.problem for output in heldout]
    right = np.array([output.correct for output in heldout], dtype=float)
    known = [problem for problem in trained_on if problem.k == k]
    raked = rake(asked, known)
    twins = neighbor_credit(task, trained_on, asked, reordered=True).mean() if task.commutative else float("nan")
    return Generalization(
        k=k,
        n_train=len(train),
        n_heldout=len(heldout),
        train=float(np.mean([output.correct for output in train])),
        heldout=float(right.mean()),
        chance=float(marginal_credit(trained_on, tuple({*known, *asked})).mean()),
        marginal=float(marginal_credit(trained_on, asked).mean()),
        nearest=float(neighbor_credit(task, trained_on, asked).mean()),
        reordered=float(twins),
        matched=float(np.average(right, weights=raked.weights)),
        raked=raked,
    )
