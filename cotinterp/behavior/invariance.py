"""Does a model of a commuting task know that order does not matter?

Each training problem that the model answers is asked again with its operands in an order that was never trained on. An
algorithm that sums gives the same answer; a table of tuples has no entry for the new order and agrees by chance. The
test needs no held-out set of its own and does not ask whether the answer is right, only whether it is the same.

Agreement can come from memory of another kind: a table of multisets agrees as well. `generalization` asks that other
question (its baseline `reordered`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.figures.behavior import invariance_figure
from cotinterp.models.decoding import Decoding, LanguageModel
from cotinterp.results.intervals import Interval, bootstrap, wilson
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import Problem, solve
from cotinterp.transcripts.regimes import Regime

ORDERS_TRIED = 720


@dataclass(frozen=True)
class Reordering:
    """One training problem, its answer, and its answers in orders that were never trained on; None for no answer."""

    problem: Problem
    answer: int | None
    reordered: tuple[int | None, ...]

    @property
    def agreement(self) -> float:
        """Share of the new orders that are answered like the trained one; having no answer never agrees."""
        return float(np.mean([answer is not None and answer == self.answer for answer in self.reordered]))


@dataclass(frozen=True)
class InvarianceResult(Result):
    """Agreement between a trained problem and its unseen reorderings, problem by problem.

    `chance` is how often two different problems of that length get one answer from this model: what agreement is worth
    where order is all that matters.
    """

    reorderings: tuple[Reordering, ...]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each k: task, regime, run_seed, k, n (problems), orders, agreement, ci_low, ci_high, chance."""
        rows = []
        for k in sorted({x.problem.k for x in self.reorderings}):
            group = [x for x in self.reorderings if x.problem.k == k]
            agreement = np.array([x.agreement for x in group])
            low, high = _interval(agreement)
            orders = sum(len(x.reordered) for x in group)
            rows.append((k, len(group), orders, agreement.mean(), low, high, _chance(group)))
        columns = ["k", "n", "orders", "agreement", "ci_low", "ci_high", "chance"]
        return with_labels(pd.DataFrame(rows, columns=columns), self.labels)

    def figure(self) -> go.Figure:
        """Agreement by number of operands, beside that of two different problems."""
        return invariance_figure(self.frame())


def permutation_invariance(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    trained_on: Sequence[Problem],
    *,
    rng: np.random.Generator,
    max_per_k: int = 200,
    orders: int = 4,
    run_seed: int = 0,
    decoding: Decoding = Decoding(),
) -> InvarianceResult:
    """Asks training problems again in up to `orders` orders that are not among the training problems.

    Args:
        trained_on: All training problems: an order that is among them is no test and is never asked.
        max_per_k: Most problems of each length.
        run_seed: Label of the trained model in the tables.

    Raises:
        ValueError: The task does not commute, or no training problem has an order that was not trained on.
    """
    if not task.commutative:
        raise ValueError(f"order matters in task {task.name!r}: there is nothing to be invariant to")
    known = {problem.operands for problem in trained_on}
    plan: dict[Problem, tuple[tuple[int, ...], ...]] = {}
    for k in sorted({problem.k for problem in trained_on}):
        of_length = list(dict.fromkeys(problem for problem in trained_on if problem.k == k))
        found = 0
        for index in rng.permutation(len(of_length)):
            unseen = _unseen_orders(of_length[index].operands, known, orders, rng)
            if unseen and found < max_per_k:
                plan[of_length[index]] = unseen
                found += 1
    if not plan:
        raise ValueError(
            f"every order of each of the {len(known)} training problems was trained on (or is the same tuple): no "
            "unseen reordering is left to ask; train on fewer problems or on more operands"
        )
    asked = {row for unseen in plan.values() for row in unseen}
    copies = {k: np.array([row for row in asked if len(row) == k]) for k in {len(row) for row in asked}}
    problems = [*plan, *(problem for rows in copies.values() for problem in solve(task, rows))]
    outputs = accuracy_by_k(model, task, regime, {"all": problems}, run_seed=run_seed, decoding=decoding)
    answers = {output.problem.operands: final_answer(task, output.text) for output in outputs.outputs}
    reorderings = [
        Reordering(problem, answers[problem.operands], tuple(answers[row] for row in rows))
        for problem, rows in plan.items()
    ]
    return InvarianceResult(tuple(reorderings), outputs.labels)


def _unseen_orders(
    operands: tuple[int, ...], known: set[tuple[int, ...]], n: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], ...]:
    """Up to `n` random distinct reorderings that are not training problems."""
    if len(operands) <= 6:
        candidates = list(dict.fromkeys(permutations(operands)))
    else:
        drawn = (tuple(rng.permutation(operands).tolist()) for _ in range(ORDERS_TRIED))
        candidates = list(dict.fromkeys(drawn))
    unseen = [row for row in candidates if row not in known]
    return tuple(unseen[index] for index in rng.permutation(len(unseen))[:n])


def _chance(group: Sequence[Reordering]) -> float:
    """Probability that the trained answers of two different problems are the same."""
    answers = [x.answer for x in group]
    n = len(answers)
    if n < 2:
        return float("nan")
    counts = pd.Series([answer for answer in answers if answer is not None]).value_counts().to_numpy()
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))


def _interval(agreement: Float[np.ndarray, " n"]) -> Interval:
    """Bootstrap over problems; Wilson's where all problems agree wholly or not at all."""
    if (agreement == 1).all() or (agreement == 0).all():
        return wilson(int(agreement.sum()), len(agreement))
    return bootstrap(agreement)
