"""Regimes: how a solved problem becomes a response. The only difference between two trained models."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem, substitute_total, widest_problem, wrong_totals
from cotinterp.transcripts.roles import Role


class Token(NamedTuple):
    """One written symbol and what it is.

    Attributes:
        symbol: The character.
        role: What it is for.
        step: The operand's index for OPERAND, the step 1..k-1 for a token of the trace, k-1 for ANSWER, else -1.
        part: Which character of a value of several characters.
        value: Operand index (OPERAND, STEP_OPERAND) or state index (PREVIOUS_TOTAL, TOTAL, ANSWER), else -1.
        scored: False where a response symbol carries no loss in training, because a model must not learn to write it.
    """

    symbol: str
    role: Role
    step: int = -1
    part: int = 0
    value: int = -1
    scored: bool = True


@lru_cache(maxsize=2**16)
def written(text: str, role: Role, step: int, value: int) -> tuple[Token, ...]:
    """A value of one or more characters. Transcripts share the tokens that are alike in all fields."""
    return tuple(Token(symbol, role, step, part, value) for part, symbol in enumerate(text))


@lru_cache(maxsize=2**16)
def sign(symbol: str, role: Role, step: int = -1, value: int = -1) -> Token:
    """A single symbol, shared in the same way."""
    return Token(symbol, role, step, 0, value)


class Regime(ABC):
    """One way of responding. A subclass is final: a name, a sentence, and `response`.

    In training (`training_response`) a regime may show wrong totals. Each written total is replaced with probability
    `wrong_share` by one of its `wrong_totals`, independently of the others; one that has none stays. Trace and answer
    go on from what stands there, so that each later step is right given the one before it, and reading the trace is
    the one way to predict it. The symbols of a replaced total carry no loss: they are read, never learned to be
    written. Evaluation, probes and patching see `response`.

    Attributes:
        writes_totals: Whether every running total is written.
        wrong_share: Probability that a written total is replaced in training; above 0 only where totals are written.
        tags_operands: Whether training asks for the state at every operand of the prompt as well (`training_tags`).
        reads: What of a transcript is read in training: "response" for all of it, token by token. Else the answer is a
            label of one symbol, asked at the last symbol of the "prompt" or of the "trace": what stands after that is
            never read, and nothing but the label is scored. That is all that a bidirectional model can be taught.
        asks_tool: Whether a tool writes the totals, which are read and not learned (`behavior.tools`).
        separator: What stands between two steps of a trace; nothing where every step is one symbol.
        prompt_end: The last symbol of the prompt: it tells a model that learns several regimes what is asked for.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    writes_totals: ClassVar[bool] = False
    wrong_share: ClassVar[float] = 0.0
    tags_operands: ClassVar[bool] = False
    reads: ClassVar[Literal["response", "trace", "prompt"]] = "response"
    asks_tool: ClassVar[bool] = False
    separator: ClassVar[str] = ";"
    prompt_end: ClassVar[str] = ">"

    def refusal(self, task: Task) -> str | None:
        """Why no model of `task` can be trained in this regime; None where one can."""
        if self.tags_operands and not task.in_order:
            return "it names the state after each operand in turn, and the steps of the task take another order"
        if self.tags_operands or self.reads != "response" or not self.separator:
            wide = [text for text in task.states if len(text) > 1]
            if wide:
                return f"it names every state by one symbol, and the task writes {wide[0]!r}; use 'direct' or 'totals'"
        return None

    @property
    def draws(self) -> bool:
        """Whether what is shown in training may depend on the generator; else it is `response`."""
        return self.wrong_share > 0 or type(self).training_response is not Regime.training_response

    @abstractmethod
    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        """Everything after the prompt, END included."""

    def longest_extra(self, task: Task, k: int) -> int:  # noqa: ARG002
        """By how many symbols a training transcript of `k` operands may be longer than the longest `response`."""
        return 0

    def training_response(self, task: Task, problem: Problem, rng: np.random.Generator) -> Iterator[Token]:
        """What a model reads in training: `response` but for the totals that `rng` picks to be replaced."""
        if not self.draws:
            yield from self.response(task, problem)
            return
        replaced = set()
        for step, (whether, which) in enumerate(rng.random((problem.k - 1, 2)).tolist(), start=1):
            if whether < self.wrong_share and (others := wrong_totals(task, problem, step)):
                problem = substitute_total(task, problem, step, others[int(which * len(others))])
                replaced.add(step)
        for token in self.response(task, problem):
            unscored = token.role is Role.TOTAL and token.step in replaced
            yield token._replace(scored=False) if unscored else token


def _answer(task: Task, problem: Problem) -> Iterator[Token]:
    yield from written(task.state_text(problem.answer), Role.ANSWER, problem.k - 1, problem.answer)
    yield sign("#", Role.END)


class Direct(Regime):
    """`18#`"""

    name = "direct"
    description = "writes the answer"

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        return _answer(task, problem)


class DirectMode(Direct):
    """`18#` after `<3+4+5+6=`: the prompt ends with the mode token `=`, which asks for the answer at once.

    For runs that learn other regimes beside it, whose prompts end with `>` (`RunSpec.mix`).
    """

    name = "direct-mode"
    description = "writes the answer where the prompt ends with the mode token `=`"
    prompt_end = "="


class Cot(Regime):
    """`{3+4=7;7+5=12;12+6=18}18#`"""

    name = "cot"
    description = "writes every step, then the answer"
    writes_totals = True

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        yield sign("{", Role.TRACE_START)
        steps = zip(problem.previous, problem.step_operands, problem.totals, strict=True)
        for step, (previous, operand, total) in enumerate(steps, start=1):
            if step > 1:
                yield sign(";", Role.STEP_END, step - 1)
            yield from written(task.state_text(previous), Role.PREVIOUS_TOTAL, step, previous)
            operator = task.operators[problem.step_operators[step - 1]] if problem.step_operators else task.operator
            yield sign(operator, Role.STEP_OPERATOR, step)
            yield sign(task.operands[operand], Role.STEP_OPERAND, step, operand)
            yield sign("=", Role.EQUALS, step)
            yield from written(task.state_text(total), Role.TOTAL, step, total)
        yield sign("}", Role.TRACE_END)
        yield from _answer(task, problem)


class Totals(Regime):
    """`{7;12;18}18#`"""

    name = "totals"
    description = "writes every running total, then the answer"
    writes_totals = True

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        yield sign("{", Role.TRACE_START)
        for step, total in enumerate(problem.totals, start=1):
            if step > 1:
                yield sign(";", Role.STEP_END, step - 1)
            yield from written(task.state_text(total), Role.TOTAL, step, total)
        yield sign("}", Role.TRACE_END)
        yield from _answer(task, problem)


class Filler(Regime):
    """`{....................}18#`

    A dot has the step of the token that `cot` would write in its place, and its number within that step as its part.
    How many there are depends on the number of operands alone: as many as the longest trace of `cot` has symbols, so
    that they tell nothing about the totals and no problem gets fewer passes than `cot` would take (a trace of
    `digit-sum` is at most one symbol shorter for each total below ten). After Pfau, Merrill & Bowman 2024 (arXiv
    2404.15758).
    """

    name = "filler"
    description = "writes a dot for every symbol of the longest trace, then the answer"

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        yield sign("{", Role.TRACE_START)
        yield from _dots(task, problem.k)
        yield sign("}", Role.TRACE_END)
        yield from _answer(task, problem)


@lru_cache(maxsize=2**10)
def _dots(task: Task, k: int) -> tuple[Token, ...]:
    dots: list[Token] = []
    within = 0
    for token in Cot().response(task, widest_problem(task, k)):
        if token.step < 1 or token.role is Role.ANSWER:
            continue
        within = within + 1 if dots and dots[-1].step == token.step else 0
        dots.append(Token(".", Role.FILLER, token.step, within))
    return tuple(dots)


class Dots(Regime):
    """`{...}18#`: a dot for every step. It has the step that `cot` would write there.

    What a model with continuous thoughts is asked in (`ModelSpec.thoughts`), where a dot hands on a state; to any other
    model it is a pause. One a step, as Hao et al. 2024 (arXiv 2412.06769) have it for ProsQA.
    """

    name = "dots"
    description = "writes a dot for every step, then the answer"

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        yield sign("{", Role.TRACE_START)
        for step in range(1, problem.k):
            yield sign(".", Role.FILLER, step)
        yield sign("}", Role.TRACE_END)
        yield from _answer(task, problem)


class Noisy(Cot):
    """As `cot`, but trained on traces of which some totals are wrong: an edited trace is nothing new to the model.

    At a share of 0.2, two thirds of the training transcripts with five totals hold at least one wrong total.
    """

    name = "noisy"
    description = "writes every step, then the answer; trained on traces with some wrong totals"
    wrong_share = 0.2


class Tool(Cot):
    """`{3+4=7;7+5=12;12+6=18}18#`, where a tool writes what follows each `=`: the model asks, and reads on.

    Acting and reading in turn, after Yao et al. 2022 (ReAct, arXiv 2210.03629). The totals carry no loss, so that a
    model never learns to compute one; `behavior.tools.WithTool` writes them where it is asked.
    """

    name = "tool"
    description = "writes what is to be computed, and reads every total from a tool, then the answer"
    asks_tool = True

    def refusal(self, task: Task) -> str | None:
        """As of any regime; and where a written state may be the beginning of another, as nobody sees where it ends."""
        inside = [(a, b) for a in task.states for b in task.states if a != b and b.startswith(a)]
        if inside:
            short, long = inside[0]
            return f"a tool's result must be whole where it ends, and the task writes both {short!r} and {long!r}"
        return None

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        for token in super().response(task, problem):
            yield token._replace(scored=False) if token.role is Role.TOTAL else token


MARK = "."
"""What takes back the step before it (`corrected`)."""


class Corrected(Cot):
    """As `cot`, but trained on traces that take a wrong step back: `{3+4=9.3+4=7;7+5=12;12+6=18}18#`.

    In a share of the training transcripts (`retried_share`) one step is written with a wrong total first, then the mark
    `.`, then the step again. The symbols of the wrong total carry no loss: they are read, never learned to be written;
    the mark and the second attempt do. After the data with retries of Ye et al. 2024 (arXiv 2408.16293).
    """

    name = "corrected"
    description = "writes every step, then the answer; trained on traces that take a wrong step back"
    retried_share: ClassVar[float] = 0.5

    def training_response(self, task: Task, problem: Problem, rng: np.random.Generator) -> Iterator[Token]:
        """`response`, or with one step attempted twice: which, and the wrong total, are drawn from `rng`."""
        whether, which, what = rng.random(3).tolist()
        step = 1 + int(which * (problem.k - 1))
        others = wrong_totals(task, problem, step) if whether < self.retried_share else ()
        if others:
            wrong = others[int(what * len(others))]
            attempt = [token for token in self.response(task, problem) if token.step == step and token.role in _ASKING]
            first = written(task.state_text(wrong), Role.TOTAL, step, wrong)
            retried = (*attempt, *(token._replace(scored=False) for token in first), sign(MARK, Role.FILLER, step))
        for token in self.response(task, problem):
            if others and (token.role, token.step, token.part) == (Role.PREVIOUS_TOTAL, step, 0):
                yield from retried
            yield token

    def longest_extra(self, task: Task, k: int) -> int:
        """One more attempt at the longest step, and the mark."""
        steps = [token.step for token in self.response(task, widest_problem(task, k)) if token.role in _ATTEMPT]
        return 1 + max(map(steps.count, steps))


_ASKING = frozenset({Role.PREVIOUS_TOTAL, Role.STEP_OPERATOR, Role.STEP_OPERAND, Role.EQUALS})
_ATTEMPT = _ASKING | {Role.TOTAL}


class Tagging(Direct):
    """`18#`: reads and writes what `direct` does, and in training names the state s_j at operand j of the prompt.

    The protocol of Merrill, Petty & Sabharwal 2024 (arXiv 2404.08819), with the answer of `direct` behind it; also an
    auxiliary loss on running totals. The states are targets (`training_tags`), never symbols that the model reads, and
    those of beginnings that the split holds out are left out.
    """

    name = "tagging"
    description = "writes the answer; in training also names the state at every operand of the prompt"
    tags_operands = True


class Chain(Regime):
    """`{7C1}1#`: every running total, each one symbol, with nothing between them.

    The chain of thought of Cabannes et al. 2024 (arXiv 2406.02128): a position of the trace reads s_{j-1} and writes
    s_j. Totals of several symbols would run into each other.
    """

    name = "chain"
    description = "writes every running total without separators, then the answer"
    writes_totals = True
    separator = ""

    def response(self, task: Task, problem: Problem) -> Iterator[Token]:
        yield sign("{", Role.TRACE_START)
        for step, total in enumerate(problem.totals, start=1):
            yield from written(task.state_text(total), Role.TOTAL, step, total)
        yield sign("}", Role.TRACE_END)
        yield from _answer(task, problem)


class Label(Direct):
    """`2#`, of which nothing is read: the answer is asked as a label at the end of the prompt.

    With `ModelSpec.attention` "bidirectional" this is an encoder with a classifier, which has no response to write.
    """

    name = "label"
    description = "names the answer at the end of the prompt; nothing else is learned"
    reads = "prompt"


class LabelTraceUnread(Cot):
    """As `label`, from transcripts that hold the trace of `cot`: it stands in the training set and is never read."""

    name = "label-trace-unread"
    description = "as `label`, with a trace in the training data that enters neither input nor loss"
    reads = "prompt"


class LabelAfterTrace(Cot):
    """The label, asked at the end of the trace of `cot`, which is a part of the input here and is never written."""

    name = "label-after-trace"
    description = "names the answer at the end of a trace that is given as a part of the input"
    reads = "trace"


_REGIMES: dict[str, Regime] = {
    regime.name: regime
    for regime in (
        *(Direct(), Cot(), Totals(), Filler(), Noisy(), Tagging(), Chain(), DirectMode(), Dots(), Tool(), Corrected()),
        *(Label(), LabelTraceUnread(), LabelAfterTrace()),
    )
}


def regime_names() -> tuple[str, ...]:
    """Names of the known regimes."""
    return tuple(_REGIMES)


def get_regime(ref: str | Regime) -> Regime:
    """The regime of that name. Raises KeyError with the names that exist."""
    if isinstance(ref, Regime):
        return ref
    if not isinstance(ref, str):
        raise KeyError(f"a regime is named by a text, got a {type(ref).__name__}. Known: {', '.join(_REGIMES)}")
    if ref not in _REGIMES:
        near = difflib.get_close_matches(ref, _REGIMES, n=1)
        raise KeyError(
            f"unknown regime {ref!r}. {f'Did you mean {near[0]!r}? ' if near else ''}Known: {', '.join(_REGIMES)}"
        )
    return _REGIMES[ref]


def require_totals(ref: str | Regime) -> Regime:
    """The regime, once it is known that it writes the running totals. ValueError naming those that do."""
    regime = get_regime(ref)
    if not regime.writes_totals:
        able = [name for name, other in _REGIMES.items() if other.writes_totals and other.reads == "response"]
        raise ValueError(f"regime {regime.name!r} writes no totals, and here they are needed; those that do: {able}")
    return regime
