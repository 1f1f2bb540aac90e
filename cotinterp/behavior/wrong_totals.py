"""Which wrong totals a trace may be given: in distribution, of the right length, and able to tell two models apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem, wrong_totals


@dataclass(frozen=True)
class WrongTotal:
    """One admissible edit.

    Attributes:
        problem: The unedited problem.
        step: Step whose total is replaced.
        total: State to be written there.
        followed: The task's own answer when it goes on from `total`.
    """

    problem: Problem
    step: int
    total: int
    followed: int


@dataclass(frozen=True)
class Exclusion:
    """Why something at one step of the problems of one length was not edited.

    Attributes:
        step: -1 for an edit of no step.
        reason: `ambiguous`: reader and recomputer would give the same answer. `too_long`: the text, with what a
            follower would write, does not fit the model's context. `no_other_total`, `no_other_trace`,
            `no_other_operand`: nothing of the same layout was found to take its place. `only_totals`: the trace holds
            nothing but totals, so that filling its steps is the same as filling its totals.
        n: Problems; for `substitute_total` the wrong totals that are `ambiguous` or `too_long`.
        edit: Kind of edit.
    """

    k: int
    step: int
    reason: str
    n: int
    edit: str = "substitute_total"


def informative_totals(
    task: Task, problems: Sequence[Problem], step: int, *, at_most: int | None, rng: np.random.Generator
) -> tuple[tuple[WrongTotal, ...], tuple[Exclusion, ...]]:
    """Up to `at_most` random edits of `step` for each problem (all with None), in order, and what was left out.

    Of the `wrong_totals` of a problem, those are left out from which the task arrives at the original answer all the
    same: they cannot tell a reader from a recomputer. The problems have one length.
    """
    candidates = [wrong_totals(task, problem, step) for problem in problems]
    row = np.repeat(np.arange(len(problems)), [len(totals) for totals in candidates])
    total = np.array([total for totals in candidates for total in totals], dtype=np.int64)
    operands = np.array([problem.operands for problem in problems])
    followed = np.column_stack([total, task.resume(operands[row], step, total).total])[:, -1]
    tells = followed != np.array([problem.answer for problem in problems])[row]
    left_out = (
        Exclusion(problems[0].k, step, "no_other_total", sum(not totals for totals in candidates)),
        Exclusion(problems[0].k, step, "ambiguous", int((~tells).sum())),
    )
    row, total, followed = row[tells], total[tells], followed[tells]
    chosen = [
        WrongTotal(problems[row[i]], step, int(total[i]), int(followed[i])) for i in _some_of_each(row, at_most, rng)
    ]
    return tuple(chosen), left_out


def _some_of_each(
    row: Int[np.ndarray, " edits"], at_most: int | None, rng: np.random.Generator
) -> Int[np.ndarray, " kept"]:
    """Indices of up to `at_most` random edits of each problem, problems in order."""
    order = np.lexsort((rng.random(len(row)), row))
    first = np.searchsorted(row[order], row[order])
    rank = np.arange(len(row)) - first
    return order if at_most is None else order[rank < at_most]
