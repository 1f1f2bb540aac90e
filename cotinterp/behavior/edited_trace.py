"""What an edit of a written trace is: the text that a model is given, and what a reader of it would answer."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import ClassVar

import numpy as np

from cotinterp.behavior.wrong_totals import Exclusion
from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime, Token, written
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import Role

WHOLE = -1
"""Step of an edit that is of the whole trace and of no step."""


class Reason(StrEnum):
    """Why a problem was not edited at a step; the counts stand in `EditResult.exclusions`."""

    NO_OTHER_TOTAL = "no_other_total"
    NO_OTHER_TRACE = "no_other_trace"
    NO_OTHER_OPERAND = "no_other_operand"
    ONLY_TOTALS = "only_totals"
    AMBIGUOUS = "ambiguous"
    TOO_LONG = "too_long"


@dataclass(frozen=True)
class EditedTrace:
    """One edit, ready to be given to a model.

    Attributes:
        edit: Name of the kind of edit.
        problem: The problem whose prompt is shown.
        step: Step that was edited, `WHOLE` where the edit has none.
        transcript: The prompt, the edited trace, and what a model that follows it would write after that.
        given: Symbols of `transcript` that the model is given.
        closed: The given text ends with the closing brace; else with a total.
        total: State of the last total in the given text; None where none stands there.
        followed: What a reader of the given text answers; None where there is nothing to follow.
    """

    edit: str
    problem: Problem
    step: int
    transcript: Transcript
    given: int
    closed: bool
    total: int | None
    followed: int | None


@dataclass(frozen=True)
class Original:
    """The unedited trace of one problem, and at which step it is to be edited.

    Attributes:
        edit: Name of the edit that is made of it.
        rng: Draws what the edit leaves open.
    """

    edit: str
    task: Task
    regime: Regime
    problem: Problem
    step: int
    rng: np.random.Generator

    @cached_property
    def transcript(self) -> Transcript:
        """The true transcript."""
        return render(self.task, self.problem, self.regime)

    def steps(self, shown: Problem | None = None) -> tuple[Token, ...]:
        """Everything between the braces of the true trace, or of that of `shown`."""
        tokens = (self.transcript if shown is None else render(self.task, shown, self.regime)).tokens
        roles = [token.role for token in tokens]
        return tokens[roles.index(Role.TRACE_START) + 1 : roles.index(Role.TRACE_END)]

    def cut(self, shown: Problem, *, followed: int) -> EditedTrace:
        """The trace of `shown`, which has this problem's operands, cut directly after the total of the step."""
        transcript = render(self.task, shown, self.regime)
        place = (Role.TOTAL, self.step)
        given = 1 + max(at for at, token in enumerate(transcript.tokens) if (token.role, token.step) == place)
        total = shown.totals[self.step - 1]
        return EditedTrace(self.edit, self.problem, self.step, transcript, given, False, total, followed)

    def closed(self, steps: Iterable[Token], *, total: int | None, followed: int | None) -> EditedTrace:
        """The prompt, then `steps` between braces; the answer is asked for."""
        tokens, problem = self.transcript.tokens, self.problem
        given = (
            *tokens[: self.transcript.n_prompt],
            *(token for token in tokens if token.role is Role.TRACE_START),
            *steps,
            *(token for token in tokens if token.role is Role.TRACE_END),
        )
        guess = problem.answer if followed is None else followed
        answer = written(self.task.state_text(guess), Role.ANSWER, problem.k - 1, guess)
        end = (token for token in tokens if token.role is Role.END)
        transcript = Transcript(problem, self.transcript.regime, tuple(chain(given, answer, end)))
        return EditedTrace(self.edit, problem, self.step, transcript, len(given), True, total, followed)


class EditKind(ABC):
    """One way of editing a trace. A subclass is final: a name, a sentence, the steps that it is made at, and `edit`.

    Attributes:
        name: Value of the column `edit`.
        description: What is done to the trace, in words.
        closed: The trace is given to its end, closed with `}`, and the model is to answer. Else the text is cut after
            the total of the edited step, and the model writes the rest of the trace as well.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    closed: ClassVar[bool] = True

    def steps(self, k: int) -> Sequence[int]:
        """The steps that a problem of `k` operands is edited at: none, but its trace as a whole, unless overridden."""
        return (WHOLE,) if k > 1 else ()

    @abstractmethod
    def edit(self, original: Original) -> EditedTrace | Reason:
        """The edit at the step of `original`, or why there is none."""

    def plan(
        self, task: Task, regime: Regime, problems: Sequence[Problem], step: int, *, rng: np.random.Generator
    ) -> tuple[Iterable[EditedTrace], tuple[Exclusion, ...]]:
        """The edits of problems of one length at one step, in order, and what was left out.

        One edit a problem, unless a kind has more. One that a reader and a model that recomputes would answer alike is
        left out as `ambiguous`.
        """
        made = [self.edit(Original(self.name, task, regime, problem, step, rng)) for problem in problems]
        telling = [one for one in made if isinstance(one, EditedTrace) and one.followed != one.problem.answer]
        left_out = Counter(one for one in made if isinstance(one, Reason))
        left_out[Reason.AMBIGUOUS] += len(made) - left_out.total() - len(telling)
        k = problems[0].k
        return telling, tuple(Exclusion(k, step, reason.value, n, self.name) for reason, n in left_out.items() if n)
