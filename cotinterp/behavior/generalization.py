"""How much of what a model can do on its training problems it can do on problems that it never saw.

The generalization ratio is (held-out - chance) / (train - chance): 1 where held-out problems are answered as well as
training problems, 0 where nothing but the training problems themselves was learned. It separates a lookup table from
an algorithm where training accuracy does not: both may be perfect there. A ratio near 1 says nothing about which
algorithm; one near 0 nothing about why (too little data is memory as well).

Beside it stand two baselines that see the training problems with their answers and nothing of the task: the most
frequent answer, and that of the nearest training problem. A model that is no better on held-out problems than these has
shown no more than memory. Held-out problems also differ from training problems in more than being new: by chance some
operand or answer is rarer among them. `rake` finds weights that take this away, so that what is left of a difference in
accuracy (the ratio at fixed marginals) is due to the composition itself.

Against the number of training problems (`SizeCurve`) an algorithm needs few and a table needs them all. A table of
tuples holds no held-out problem (the sides are disjoint), however large it grows; it answers them only as far as near
neighbors share the answer. Where held-out accuracy rises with the number of training problems at the same number of
updates, something that generalizes was learned from enough of them. A curve of one seed for each size describes those
models, not the training method.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Int

from cotinterp.behavior.accuracy import AccuracyResult, Output
from cotinterp.figures.behavior import generalization_figure, training_size_figure
from cotinterp.results.intervals import Interval, wilson
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.registry import get_task
from cotinterp.tasks.task import Task
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.problems import Problem, require_solved


def majority_credit(trained_on: Sequence[Problem], problems: Sequence[Problem]) -> Float[np.ndarray, " n"]:
    """For each problem, the chance that the most frequent training answer of its length is right; ties are shared.

    ValueError where no training problem has the length of a problem.
    """
    credit = np.zeros(len(problems))
    for k, rows in _by_length(problems).items():
        counts = Counter(problem.answer for problem in _of_length(trained_on, k))
        most = max(counts.values())
        favorites = {answer for answer, count in counts.items() if count == most}
        credit[rows] = [(problems[row].answer in favorites) / len(favorites) for row in rows]
    return credit


def neighbor_credit(
    task: Task, trained_on: Sequence[Problem], problems: Sequence[Problem], *, reordered: bool = False
) -> Float[np.ndarray, " n"]:
    """For each problem, the share of its nearest training problems (of its length) that have its answer.

    Nearest means the fewest operands changed; a training problem is its own nearest, so there the credit is 1. With
    `reordered` operands are compared as multisets: what a memory that ignores order could answer. ValueError as above.
    """
    credit = np.zeros(len(problems))
    for k, rows in _by_length(problems).items():
        known = list(dict.fromkeys(_of_length(trained_on, k)))
        answers = np.array([problem.answer for problem in known])
        there, here = _operands(known), _operands([problems[row] for row in rows])
        for row, operands in zip(rows, here, strict=True):
            changed = (there != operands).sum(1)
            distance = _reordered_distance(operands, there, task.n_operands) if reordered else changed
            nearest = answers[distance == distance.min()]
            credit[row] = (nearest == problems[row].answer).mean()
    return credit


def _reordered_distance(
    operands: Int[np.ndarray, " k"], others: Int[np.ndarray, "n k"], n_operands: int
) -> Int[np.ndarray, " n"]:
    """Operands that have to be changed, in any order: k minus the size of the multisets' intersection."""
    values = np.arange(n_operands)
    own = (operands[:, None] == values).sum(0)
    shared: Int[np.ndarray, " n"] = np.minimum((others[:, :, None] == values).sum(1), own).sum(1)
    return len(operands) - shared


def _operands(problems: Sequence[Problem]) -> Int[np.ndarray, "n k"]:
    return np.array([problem.operands for problem in problems])


def _by_length(problems: Sequence[Problem]) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = {}
    for row, problem in enumerate(problems):
        rows.setdefault(problem.k, []).append(row)
    return rows


def _of_length(trained_on: Sequence[Problem], k: int) -> list[Problem]:
    found = [problem for problem in trained_on if problem.k == k]
    if not found:
        lengths = sorted({problem.k for problem in trained_on})
        raise ValueError(f"no training problem has {k} operands (training lengths: {lengths}), so there is no baseline")
    return found


SWEEPS = 200


class Raked(NamedTuple):
    """Weights of mean 1 and what they could not even out.

    Attributes:
        weights: Of each problem.
        discrepancy: Largest remaining difference between two shares, over all places and the answer; 0 where all
            marginals agree. It stays large where some operand or answer does not occur among the problems at all.
        effective_n: Kish's effective number of problems, (sum of weights)^2 / sum of squared weights.
    """

    weights: Float[np.ndarray, " n"]
    discrepancy: float
    effective_n: float


def rake(problems: Sequence[Problem], reference: Sequence[Problem]) -> Raked:
    """Weights under which `problems` have the marginals of `reference`: each operand at each place, and the answer.

    Iterative proportional fitting (Deming & Stephan 1940). Both hold problems of one and the same length; ValueError
    otherwise, or where either is empty.
    """
    lengths = {problem.k for problem in (*problems, *reference)}
    if not problems or not reference or len(lengths) > 1:
        raise ValueError(
            f"marginals are compared between problems of one length; got {len(problems)} and {len(reference)} problems "
            f"of lengths {sorted(lengths)}"
        )
    own, other = _columns(problems), _columns(reference)
    weights = np.ones(len(problems))
    targets = [
        np.bincount(there, minlength=here.max() + 1) / len(there) for here, there in zip(own, other, strict=True)
    ]
    for _ in range(SWEEPS):
        for here, target in zip(own, targets, strict=True):
            share = np.bincount(here, weights, minlength=len(target)) / weights.sum()
            factor = np.divide(target, share, out=np.zeros(len(target)), where=share > 0)
            adjusted = weights * factor[here]
            if adjusted.sum() > 0:
                weights = adjusted * len(weights) / adjusted.sum()
    gap = max(
        float(np.abs(np.bincount(here, weights, minlength=len(target)) / weights.sum() - target).max())
        for here, target in zip(own, targets, strict=True)
    )
    return Raked(weights, gap, float(weights.sum() ** 2 / (weights**2).sum()))


def _columns(problems: Sequence[Problem]) -> list[Int[np.ndarray, " n"]]:
    """One column for each operand's place, and one for the answer."""
    table = np.array([(*problem.operands, problem.answer) for problem in problems])
    return list(table.T)


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
        majority: What that answer is in fact worth on the held-out problems.
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
    majority: float
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
        """One row for each k: task, regime, run_seed, k, n_train, n_heldout, train, heldout, chance, majority, nearest,
        reordered, ratio, ci_low, ci_high, matched, matched_ratio, discrepancy, effective_n."""
        rows = [
            {
                "k": cell.k,
                "n_train": cell.n_train,
                "n_heldout": cell.n_heldout,
                "train": cell.train,
                "heldout": cell.heldout,
                "chance": cell.chance,
                "majority": cell.majority,
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
        return generalization_figure(self.frame())


def generalization_by_k(task: Task, accuracy: AccuracyResult, trained_on: Sequence[Problem]) -> GeneralizationResult:
    """The ratio and its baselines for every number of operands that both sides were measured on.

    Args:
        task: The task of the run.
        accuracy: Its free-running accuracy on `train` and `heldout` problems.
        trained_on: All its training problems: what a memory could hold.

    Raises:
        ValueError: No number of operands was measured on both sides, or a held-out problem was trained on.
    """
    if accuracy.labels.get("task") != task.name:
        raise ValueError(f"the accuracy was measured on task {accuracy.labels.get('task')!r}, not on {task.name!r}")
    train, heldout = accuracy.of_split("train"), accuracy.of_split("heldout")
    require_solved(task, [*trained_on, *(output.problem for output in (*train, *heldout))])
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
        chance=float(majority_credit(trained_on, tuple({*known, *asked})).mean()),
        majority=float(majority_credit(trained_on, asked).mean()),
        nearest=float(neighbor_credit(task, trained_on, asked).mean()),
        reordered=float(twins),
        matched=float(np.average(right, weights=raked.weights)),
        raked=raked,
    )


SIZES = (100, 300, 1000, 3000, 10_000)


def size_specs(spec: RunSpec, sizes: Sequence[int] = SIZES) -> dict[int, RunSpec]:
    """The run of `spec` at each number of training problems, all else equal; the number of updates in particular.

    Smaller sets are not subsets of larger ones: each is drawn anew from the training side. ValueError without sizes.
    """
    if not sizes:
        raise ValueError("a curve needs at least one number of training problems")
    return {n: spec.model_copy(update={"n_train": n}) for n in sorted(set(sizes))}


@dataclass(frozen=True)
class SizeCurve(Result):
    """Generalization of otherwise equal runs by number of training problems."""

    runs: Mapping[int, GeneralizationResult]

    def frame(self) -> pd.DataFrame:
        """The rows of every run's generalization table, with `training_size` behind the labels."""
        parts = []
        for size, result in sorted(self.runs.items()):
            table = result.frame()
            table.insert(len(result.labels), "training_size", size)
            parts.append(table)
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> go.Figure:
        """Accuracy against training problems, a panel for each number of operands; training problems dashed."""
        return training_size_figure(self.frame())


HALF = 0.5
"""Generalization ratio from which a model counts as one that found an algorithm."""
THRESHOLD_RESAMPLES = 2000
THRESHOLD_COLUMNS = ("sizes", "seeds", "threshold", "ci_low", "ci_high")


RUN = ("task", "n_layers", "n_train", "run_seed")
LEAST_HELD_OUT = 30
"""Held-out problems of a length below which it is left out of a run's ratio."""


def ratio_by_run(sweep: pd.DataFrame) -> pd.DataFrame:
    """One generalization ratio for each run of a sweep's table: (held out - chance) / (training - chance).

    Accuracies and chance (`guessing`) are averaged over the lengths with LEAST_HELD_OUT held-out problems. NaN where
    the run does no better than chance on its own training problems. The columns are RUN, ended, step and slug, ratio,
    and its training accuracy, `train`.
    """
    rows = []
    measured = sweep[(sweep["n"] > 0) & (sweep["reading"] == "answer")]
    for (task, _), run in measured.groupby(["task", "slug"], sort=True):
        known, counted = get_task(str(task)), run[(run["split"] == "train") | (run["n"] >= LEAST_HELD_OUT)]
        by_split = counted.pivot(index="k", columns="split", values="accuracy").dropna()
        chance = np.array([guessing(known, int(k)) for k in by_split.index])
        held, trained = ((by_split[side] - chance).mean() for side in ("heldout", "train"))
        labels = (run.iloc[0][name] for name in (*RUN, "ended", "step", "slug"))
        rows.append((*labels, held / trained if trained > 0 else np.nan, by_split["train"].mean()))
    return pd.DataFrame(rows, columns=[*RUN, "ended", "step", "slug", "ratio", "train"])


def size_thresholds(ratios: pd.DataFrame, by: Sequence[str], *, half: float = HALF) -> pd.DataFrame:
    """From how many training problems on a model generalizes: N*, where the mean ratio over seeds passes `half`.

    Between the last size whose mean is below `half` and the next one, N* is interpolated on the logarithm of the size.
    0 says that the mean is above at the smallest size already, infinity that it is below at the largest one: N* is then
    beyond the range. `ci_low` and `ci_high` are the 2.5 and 97.5 percentiles when the seeds of each size are redrawn,
    missing where a size that N* lies beside has one seed. Of three seeds they say whether one seed decides alone, and
    are too narrow for another set of seeds; nor do they say where between two sizes the curve rises. Of models that had
    not converged N* is that of their budget. Varma et al. 2023 (arXiv 2309.02390): below a critical size memorizing is
    the more efficient circuit.

    Args:
        ratios: One row for each run: the columns `by`, n_train, run_seed and ratio (`Generalization`).
        by: What tells the curves apart, such as task and n_layers.

    Returns:
        One row for each curve: `by`, then THRESHOLD_COLUMNS.

    Raises:
        ValueError: A curve of one size, a run twice, or a ratio that is missing.
    """
    rng, rows = np.random.default_rng(0), []
    for key, curve in ratios.groupby(list(by), sort=True):
        if (
            curve["n_train"].nunique() < 2
            or curve["ratio"].isna().any()
            or curve.duplicated(["n_train", "run_seed"]).any()
        ):
            raise ValueError(
                f"a threshold takes two numbers of training problems, each seed once and with a ratio; {key} has "
                f"{curve[['n_train', 'run_seed', 'ratio']].to_dict('list')}"
            )
        sizes = np.sort(curve["n_train"].unique())
        found = [curve.loc[curve["n_train"] == size, "ratio"].to_numpy() for size in sizes]
        drawn = np.stack([rng.choice(one, (THRESHOLD_RESAMPLES, len(one))).mean(1) for one in found], axis=1)
        redrawn = [_crossing(sizes, means, half) for means in drawn]
        means = np.array([one.mean() for one in found])
        beside = int(np.flatnonzero(means < half).max(initial=0))
        # The nearest draw: between a number and infinity nothing can be interpolated.
        several = min(map(len, found[beside : beside + 2])) > 1
        ends = np.quantile(redrawn, (0.025, 0.975), method="nearest") if several else np.full(2, np.nan)
        rows.append((*key, len(sizes), curve["run_seed"].nunique(), _crossing(sizes, means, half), *ends))
    return pd.DataFrame(rows, columns=[*by, *THRESHOLD_COLUMNS])


def _crossing(sizes: Int[np.ndarray, " sizes"], means: Float[np.ndarray, " sizes"], half: float) -> float:
    below = np.flatnonzero(means < half)
    if not below.size:
        return 0.0
    last = int(below[-1])
    if last == len(sizes) - 1:
        return float("inf")
    share = (half - means[last]) / (means[last + 1] - means[last])
    return float(np.exp(np.log(sizes[last]) + share * np.log(sizes[last + 1] / sizes[last])))


def guessing(task: Task, k: int, *, n: int = 20_000) -> float:
    """Accuracy of the most frequent answer of a length, over all its problems or `n` random ones."""
    few = task.n_problems(k) <= n
    operands = task.every(k) if few else np.random.default_rng(0).integers(task.n_operands, size=(n, k))
    answers = task.steps(operands).total[:, -1]
    return float(np.bincount(answers).max() / len(answers))
