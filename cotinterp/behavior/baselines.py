"""What can be answered without computing anything: the most frequent answer, or that of the nearest training problem.

A model that is no better on held-out problems than these has shown no more than memory. Both baselines see the training
problems with their answers, and nothing of the task.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem


def marginal_credit(trained_on: Sequence[Problem], problems: Sequence[Problem]) -> Float[np.ndarray, " n"]:
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
