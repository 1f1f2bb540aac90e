"""The traces that a model is shown part of: its problem's own, one with a wrong total in it, another problem's."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from cotinterp.behavior.answer_given_trace import CLOSE, OPEN, Opening
from cotinterp.behavior.wrong_totals import informative_totals
from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem, substitute_total
from cotinterp.transcripts.regimes import Regime, get_regime, regime_names
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role

Trace = Literal["true", "edited", "shuffled"]
IN_A_STEP = frozenset({Role.PREVIOUS_TOTAL, Role.STEP_OPERATOR, Role.STEP_OPERAND, Role.EQUALS, Role.TOTAL})
SEPARATOR = ";"


class ShownTrace(NamedTuple):
    """A trace to be shown under the prompt of `problem`.

    Attributes:
        steps: Text of each of its steps, without separators.
        followed: Answer at which the task arrives from the wrong total of an edited trace; None for the others.
    """

    trace: Trace
    problem: Problem
    steps: tuple[str, ...]
    followed: int | None

    def begun(self, n: int) -> Opening:
        """The first `n` steps, cut directly after total `n`; the prompt alone for none."""
        return Opening(self.problem, OPEN + SEPARATOR.join(self.steps[:n]) if n else "")

    def closed(self, n: int) -> Opening:
        """The first `n` steps between braces, closed as the regime closes a whole trace; `{}` for none."""
        return Opening(self.problem, OPEN + SEPARATOR.join(self.steps[:n]) + CLOSE)


def shown_traces(
    task: Task, regime: str | Regime, problems: Sequence[Problem], *, edited_step: int = 1, rng: np.random.Generator
) -> Iterator[ShownTrace]:
    """The three traces of each problem, as far as there are such.

    - `true`: the problem's own.
    - `edited`: the total of `edited_step` is another one that is written with as many symbols and occurs there, and the
      later steps follow from it. Missing where no such total leads to another answer, or the problem has no such step.
    - `shuffled`: the trace of another of the problems with as many operands and another answer. Every problem's trace
      is shown under another prompt about as often. A reader of all of it arrives at the other answer; from a part of it
      it goes on with its own operands, and may arrive at the true answer by chance. Missing where no other problem has
      another answer.

    Args:
        problems: Distinct ones of one length.
    """
    edits = {}
    if problems and 1 <= edited_step < problems[0].k:
        wrong, _ = informative_totals(task, problems, edited_step, at_most=1, rng=rng)
        edits = {one.problem: one for one in wrong}
    ring = [problems[index] for index in rng.permutation(len(problems))]
    for place, problem in enumerate(ring):
        yield ShownTrace("true", problem, steps_of(task, regime, problem), None)
        if (edit := edits.get(problem)) is not None:
            shown = substitute_total(task, problem, edited_step, edit.total)
            yield ShownTrace("edited", problem, steps_of(task, regime, shown), edit.followed)
        others = (other for other in ring[place + 1 :] + ring[:place] if other.answer != problem.answer)
        if (other := next(others, None)) is not None:
            yield ShownTrace("shuffled", problem, steps_of(task, regime, other), None)


def require_totals(regime: str | Regime) -> Regime:
    """The regime, once it is known to write running totals. ValueError naming those that do."""
    found = get_regime(regime)
    if not found.writes_totals:
        able = [name for name in regime_names() if get_regime(name).writes_totals]
        raise ValueError(f"a response of regime {found.name!r} holds no totals to be shown; regimes that do: {able}")
    return found


def steps_of(task: Task, regime: str | Regime, problem: Problem) -> tuple[str, ...]:
    """The text of each step of the trace that the regime writes, without separators."""
    tokens = [token for token in render(task, problem, regime).tokens if token.role in IN_A_STEP]
    return tuple("".join(token.symbol for token in tokens if token.step == step) for step in range(1, problem.k))
