"""Regimes: how a solved problem becomes a response. The only difference between two trained models."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.roles import Role


class Token(NamedTuple):
    """One written symbol and what it is.

    Attributes:
        symbol: The character.
        role: What it is for.
        step: The operand's index for OPERAND, the step 1..k-1 for a token of the trace, k-1 for ANSWER, else -1.
        part: Which character of a value of several characters.
        value: Operand index (OPERAND, STEP_OPERAND) or state index (PREVIOUS_TOTAL, TOTAL, ANSWER), else -1.
    """

    symbol: str
    role: Role
    step: int = -1
    part: int = 0
    value: int = -1


def written(text: str, role: Role, step: int, value: int) -> Iterator[Token]:
    """A value of one or more characters."""
    return (Token(symbol, role, step, part, value) for part, symbol in enumerate(text))


class Regime(ABC):
    """One way of responding. A subclass is final: a name, a sentence, and `response`."""

    name: ClassVar[str]
    description: ClassVar[str]
    writes_totals: ClassVar[bool] = False

    @abstractmethod
    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        """Everything after the prompt, END included."""


def _answer(task: Task, problem: Problem) -> Iterator[Token]:
    yield from written(task.state_text(problem.answer), Role.ANSWER, problem.k - 1, problem.answer)
    yield Token("#", Role.END)


class Direct(Regime):
    """`18#`"""

    name = "direct"
    description = "writes the answer"

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        return _answer(task, problem)


class Cot(Regime):
    """`{3+4=7;7+5=12;12+6=18}18#`"""

    name = "cot"
    description = "writes every step, then the answer"
    writes_totals = True

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        yield Token("{", Role.TRACE_START)
        steps = zip(problem.previous, problem.step_operands, problem.totals, strict=True)
        for step, (previous, operand, total) in enumerate(steps, start=1):
            if step > 1:
                yield Token(";", Role.STEP_END, step - 1)
            yield from written(task.state_text(previous), Role.PREVIOUS_TOTAL, step, previous)
            yield Token(task.operator, Role.STEP_OPERATOR, step)
            yield Token(task.operands[operand], Role.STEP_OPERAND, step, 0, operand)
            yield Token("=", Role.EQUALS, step)
            yield from written(task.state_text(total), Role.TOTAL, step, total)
        yield Token("}", Role.TRACE_END)
        yield from _answer(task, problem)


class Totals(Regime):
    """`{7;12;18}18#`"""

    name = "totals"
    description = "writes every running total, then the answer"
    writes_totals = True

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        yield Token("{", Role.TRACE_START)
        for step, total in enumerate(problem.totals, start=1):
            if step > 1:
                yield Token(";", Role.STEP_END, step - 1)
            yield from written(task.state_text(total), Role.TOTAL, step, total)
        yield Token("}", Role.TRACE_END)
        yield from _answer(task, problem)


_REGIMES: dict[str, Regime] = {regime.name: regime for regime in (Direct(), Cot(), Totals())}


def regime_names() -> tuple[str, ...]:
    """Names of the known regimes."""
    return tuple(_REGIMES)


def get_regime(ref: str | Regime) -> Regime:
    """The regime of that name. Raises KeyError with the names that exist."""
    if isinstance(ref, Regime):
        return ref
    if ref not in _REGIMES:
        near = difflib.get_close_matches(ref, _REGIMES, n=1)
        raise KeyError(
            f"unknown regime {ref!r}. {f'Did you mean {near[0]!r}? ' if near else ''}Known: {', '.join(_REGIMES)}"
        )
    return _REGIMES[ref]
