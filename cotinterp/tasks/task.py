"""What a task is: an exact, vectorized computation over operands, with no model in sight.

A task is its own oracle. The arrays that it returns are the training data, the labels of the probes, the expected
continuation of an edited trace and the expectations of the tests, so there is nothing to keep in step.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.guard import guard

SymbolKind = Literal["operand", "operator", "bracket"]


@dataclass(frozen=True)
class Steps:
    """The whole computation of `n` problems of one length: column `j - 1` is step `j`.

    Attributes:
        previous: State that step `j` starts from: s_{j-1}, or the left value of an operation in a tree.
        operand: What step `j` takes beside it, an index into `Task.operands`: x_j, or the right value of an operation.
        total: State that step `j` arrives at, s_j. The last column is the answer.
        operator: Index into `Task.operators` of the operator of step `j`; None where a task has one operator.
    """

    previous: Int[np.ndarray, "n steps"]
    operand: Int[np.ndarray, "n steps"]
    total: Int[np.ndarray, "n steps"]
    operator: Int[np.ndarray, "n steps"] | None = None


class PromptSymbol(NamedTuple):
    """One symbol of a prompt and what it is.

    Attributes:
        text: The character.
        kind: An operand, an operator between two of them, or a bracket around an operation.
        number: Of the operand, from 0; of an operator or a bracket the step that carries the operation out.
        value: Index into `Task.operands` of an operand, else -1.
        part: 0, but for the closing bracket of an operation, which is 1.
    """

    text: str
    kind: SymbolKind
    number: int
    value: int = -1
    part: int = 0


@lru_cache(maxsize=2**16)
def operand_symbol(text: str, number: int, value: int) -> PromptSymbol:
    """Operand `number` of a prompt. Prompts share the symbols that are alike, as there are few and they are many."""
    return PromptSymbol(text, "operand", number, value)


@lru_cache(maxsize=2**16)
def operator_symbol(text: str, step: int) -> PromptSymbol:
    """The operator of the operation that `step` carries out, shared in the same way."""
    return PromptSymbol(text, "operator", step)


@lru_cache(maxsize=2**10)
def bracket_symbol(text: str, step: int, part: int) -> PromptSymbol:
    """A bracket of the operation that `step` carries out: `part` 0 opens it, 1 closes it."""
    return PromptSymbol(text, "bracket", step, -1, part)


def whole_number(value: object, name: str, meaning: str, least: int | None = None) -> int:
    """`value` as an int. ValueError where it is none (a bool or a float is none), or is less than `least`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} is {meaning}, a whole number; got {value!r} ({type(value).__name__})")
    if least is not None and value < least:
        raise ValueError(f"{name} is {meaning}, {least} or more; got {value}")
    return int(value)


STRUCTURE = "_<>{}=;#."
"""Symbols that the transcripts use themselves: padding, prompt, trace, equality, separator, end, filler."""


class Task(ABC):
    """A function of `k` operands that is computed in `k - 1` written steps.

    A problem is a tuple of `k` operand codes, each drawn uniformly from `range(n_operands)`. States and operands are
    indices; `states` and `operands` say how each is written. A subclass sets the class attributes and implements
    `steps` and `resume`; a left fold needs only `FoldTask.step`, a formula only `TreeTask.combine`. Where a code is not
    the index of an operand's symbol, or not every tuple of codes is a problem of its own, a subclass also says how a
    prompt is written (`prompt`) and which codes stand for the same problem (`canonical`, `every`, `n_problems`).

    Attributes:
        name: Kebab-case name, used by the registry, in slugs and in tables.
        operands: The symbols that operands are written with.
        states: How each state is written, one or more symbols; the operands' symbols unless it is overridden.
        operator: The symbol between operands.
        commutative: Whether the answer is the same for every order of the operands. `check_task` measures it.
        in_order: Whether step j starts from the total of step j - 1 and consumes operand j. `check_task` measures it.
            Where it is False, instruments that look for operand j or total j - 1 at step j refuse.
        brackets: An opening and a closing bracket where prompts have them.
        min_k: Fewest operands.
        max_k: Most operands.
    """

    name: ClassVar[str]
    operands: ClassVar[str | tuple[str, ...]]
    operator: ClassVar[str] = "*"
    commutative: ClassVar[bool]
    in_order: ClassVar[bool] = True
    brackets: ClassVar[str] = ""
    min_k: ClassVar[int] = 2
    max_k: ClassVar[int] = 64

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        guard(cls)

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(self.operands)

    @property
    def operators(self) -> tuple[str, ...]:
        """The symbols that `Steps.operator` counts into: the one `operator` unless it is overridden."""
        return (self.operator,)

    @abstractmethod
    def steps(self, operands: Int[np.ndarray, "n k"]) -> Steps:
        """Every step of every problem, exactly."""

    @abstractmethod
    def resume(self, operands: Int[np.ndarray, "n k"], step: int, total: Int[np.ndarray, " n"]) -> Steps:
        """The steps after `step`, had that step arrived at `total`: what a reader of an edited trace writes.

        Args:
            operands: The unchanged prompts.
            step: The edited step, 1..k-1. Its last value leaves nothing to do: `k - 1 - step` columns come back.
            total: The state that was written there instead.
        """

    def resume_from(self, operands: Int[np.ndarray, "n k"], written: Int[np.ndarray, "n step"]) -> Steps:
        """The steps after those whose totals stand `written`, right or wrong.

        The last of them is all that matters to a task whose state is what its last step arrived at. A task whose later
        steps take up earlier totals overrides this.
        """
        return self.resume(operands, written.shape[1], written[:, -1])

    def prompt(self, operands: Sequence[int]) -> Iterator[PromptSymbol]:
        """How a problem is asked: by default its operands' symbols with the operator between them."""
        for index, operand in enumerate(operands):
            if index:
                yield operator_symbol(self.operator, index)
            yield operand_symbol(self.operands[operand], index, operand)

    def canonical(self, operands: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "n k"]:
        """The one tuple of codes that stands for each problem: two tuples with one prompt have one canonical tuple.

        The split is by canonical tuple, so that no prompt is on two sides of it. By default every tuple is its own.
        """
        return operands

    def n_problems(self, k: int) -> int:
        """How many different problems of `k` operands there are."""
        return self.n_operands**k

    def every(self, k: int) -> Int[np.ndarray, "n k"]:
        """All canonical tuples of `k` codes, each once, in a fixed order; `n_problems(k)` of them."""
        return np.indices((self.n_operands,) * k).reshape(k, -1).T

    def replacements(self, operands: Sequence[int], index: int) -> tuple[int, ...]:
        """The codes that may stand in place of operand `index` so that its symbol, and no other, is another one."""
        return tuple(code for code in range(self.n_operands) if code != operands[index])

    def reachable(self, k: int) -> tuple[frozenset[int], ...]:
        """States that s_0, s_1, ..., s_{k-1} can take over all operands: all of them unless a subclass knows better."""
        self.check_k(k)
        return (frozenset(range(self.n_states)),) * k

    @property
    def n_operands(self) -> int:
        """How many codes an operand is drawn from: one for each symbol unless it is overridden."""
        return len(self.operands)

    @property
    def n_states(self) -> int:
        return len(self._written)

    def state_text(self, state: int) -> str:
        """How a state is written."""
        return self._written[state]

    @cached_property
    def state_widths(self) -> Int[np.ndarray, " states"]:
        """Number of symbols that each state is written with."""
        return np.array([len(text) for text in self._written])

    def parse_state(self, text: str) -> int | None:
        """The state that `text` denotes; None where it denotes none."""
        return self._state_of_text.get(text)

    def parse_operand(self, text: str) -> int | None:
        """The index of the operand that `text` denotes; None where it denotes none."""
        return self._operand_of_text.get(text)

    @cached_property
    def _written(self) -> tuple[str, ...]:
        """`states`, which a task may compute anew whenever it is asked."""
        return self.states

    @cached_property
    def _state_of_text(self) -> dict[str, int]:
        return {text: state for state, text in enumerate(self._written)}

    @cached_property
    def _operand_of_text(self) -> dict[str, int]:
        return {text: operand for operand, text in enumerate(self.operands)}

    def check_k(self, k: int) -> None:
        """Raises ValueError when the task has no problems of `k` operands."""
        whole_number(k, "k", "the number of operands")
        if not self.min_k <= k <= self.max_k:
            raise ValueError(f"task {self.name!r} has {self.min_k} to {self.max_k} operands, not {k}")

    def require_order(self, purpose: str) -> None:
        """Raises ValueError where steps do not follow the operands in order; `purpose` says what needs it."""
        if not self.in_order:
            raise ValueError(
                f"{purpose} looks for the last total and operand j at step j, as in a left fold; the steps of task "
                f"{self.name!r} do not follow its operands in order (in_order = False)"
            )

    def check_step(self, k: int, step: int) -> None:
        """Raises ValueError when a problem of `k` operands has no step of this number."""
        whole_number(step, "step", "the number of a step")
        if not 1 <= step < k:
            raise ValueError(f"a problem of {k} operands has steps 1 to {k - 1}, not {step}")

    def check_operands(self, operands: np.ndarray) -> None:
        """Raises ValueError unless these are rows of operand codes: a code of another task must not wrap around."""
        if operands.ndim != 2 or (operands.size and operands.dtype.kind not in "iu"):
            raise ValueError(
                f"task {self.name!r}: operands are integer codes, one row a problem and one column an operand; got "
                f"{operands.dtype} of shape {operands.shape}"
            )
        self.check_k(operands.shape[1])
        if operands.size and not 0 <= int(operands.min()) <= int(operands.max()) < self.n_operands:
            raise ValueError(
                f"task {self.name!r} has operand codes 0 to {self.n_operands - 1}; got {operands.min()} to "
                f"{operands.max()}: are these problems of another task?"
            )

    def _inside(self, state: object, origin: str, *inputs: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """`state`, once it is known to be what a user's function promised: an integer array of states, one an input."""
        if not isinstance(state, np.ndarray) or (inputs and state.shape != inputs[0].shape):
            raise ValueError(
                f"task {self.name!r}: {origin} must map arrays of indices to an array of the same shape, "
                f"got {type(state).__name__} {getattr(state, 'shape', '')}"
            )
        if state.dtype.kind not in "iu":
            raise ValueError(f"task {self.name!r}: {origin} must return integer state indices, got {state.dtype}")
        if state.size and (state.min() < 0 or state.max() >= self.n_states):
            outside = np.flatnonzero((state < 0) | (state >= self.n_states))
            given = ", ".join(str(int(array[outside[0]])) for array in inputs)
            raise ValueError(
                f"task {self.name!r}: {origin}({given}) = {int(state[outside[0]])} leaves its {self.n_states} states "
                f"(0..{self.n_states - 1}); widen `states`, lower `max_k` or take the result modulo their number"
            )
        return state.astype(np.int64, copy=False)


class FoldTask(Task):
    """A left fold: s_0 = initial(x_0), s_j = step(s_{j-1}, x_j), answer s_{k-1}."""

    @abstractmethod
    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """One transition, vectorized: arrays of indices in, an array of state indices out."""

    def initial(self, operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The state that the first operand alone stands for: the one with its own index unless overridden."""
        return operand

    def steps(self, operands: Int[np.ndarray, "n k"]) -> Steps:
        self.check_k(operands.shape[1])
        first = self._inside(self.initial(operands[:, 0]), "initial", operands[:, 0])
        return self._fold(first, operands[:, 1:])

    def resume(self, operands: Int[np.ndarray, "n k"], step: int, total: Int[np.ndarray, " n"]) -> Steps:
        self.check_step(operands.shape[1], step)
        return self._fold(self._inside(total, "the edited total"), operands[:, step + 1 :])

    def reachable(self, k: int) -> tuple[frozenset[int], ...]:
        if k not in self._reachable:
            self._reachable[k] = self._reached(k)
        return self._reachable[k]

    @cached_property
    def _reachable(self) -> dict[int, tuple[frozenset[int], ...]]:
        return {}

    def _reached(self, k: int) -> tuple[frozenset[int], ...]:
        self.check_k(k)
        operands = np.arange(self.n_operands)
        states = np.unique(self._inside(self.initial(operands), "initial", operands))
        chain = [frozenset(states.tolist())]
        for _ in range(1, k):
            total, operand = (axis.ravel() for axis in np.meshgrid(states, operands, indexing="ij"))
            states = np.unique(self._inside(self.step(total, operand), "step", total, operand))
            chain.append(frozenset(states.tolist()))
        return tuple(chain)

    def _fold(self, first: Int[np.ndarray, " n"], rest: Int[np.ndarray, "n steps"]) -> Steps:
        totals = [first]
        for operand in rest.T:
            totals.append(self._inside(self.step(totals[-1], operand), "step", totals[-1], operand))
        chain = np.stack(totals, axis=1)
        return Steps(previous=chain[:, :-1], operand=rest, total=chain[:, 1:])
