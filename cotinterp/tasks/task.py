"""What a task is: an exact, vectorized computation over operands, with no model in sight.

A task is its own oracle. The arrays that it returns are the training data, the labels of the probes, the
expected continuation of an edited trace and the expectations of the tests, so there is nothing to keep in step.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Int

STRUCTURE = "_<>{}=;#."
"""Symbols that the transcripts use themselves: padding, prompt, trace, equality, separator, end, filler."""


@dataclass(frozen=True)
class Steps:
    """The whole computation of `n` problems of one length: column `j - 1` is step `j`.

    Attributes:
        previous: State that step `j` starts from, s_{j-1}.
        operand: Index of the operand that step `j` consumes, x_j.
        total: State that step `j` arrives at, s_j. The last column is the answer.
    """

    previous: Int[np.ndarray, "n steps"]
    operand: Int[np.ndarray, "n steps"]
    total: Int[np.ndarray, "n steps"]


class Task(ABC):
    """A function of `k` operands that is computed in `k - 1` written steps.

    States and operands are indices; `states` and `operands` say how each is written. A subclass sets the class
    attributes and implements `steps` and `resume`; a left fold needs only `FoldTask.step`.

    Attributes:
        name: Kebab-case name, used by the registry, in slugs and in tables.
        operands: One symbol per operand.
        states: How each state is written, one or more symbols; the operands' symbols unless it is overridden.
        operator: The symbol between operands.
        commutative: Whether the answer is the same for every order of the operands. `check_task` measures it.
        min_k: Fewest operands.
        max_k: Most operands.
    """

    name: ClassVar[str]
    operands: ClassVar[str | tuple[str, ...]]
    operator: ClassVar[str] = "*"
    commutative: ClassVar[bool]
    min_k: ClassVar[int] = 2
    max_k: ClassVar[int] = 64

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(self.operands)

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

    def reachable(self, k: int) -> tuple[frozenset[int], ...]:
        """States that s_0, s_1, ..., s_{k-1} can take over all operands: all of them unless a subclass knows better."""
        self.check_k(k)
        return (frozenset(range(self.n_states)),) * k

    @property
    def n_operands(self) -> int:
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
        if not self.min_k <= k <= self.max_k:
            raise ValueError(f"task {self.name!r} has {self.min_k} to {self.max_k} operands, not {k}")


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
        k = operands.shape[1]
        if not 1 <= step < k:
            raise ValueError(f"a problem of {k} operands has steps 1 to {k - 1}, not {step}")
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

    def _inside(self, state: object, origin: str, *inputs: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """`state`, once it is known to be what a user's `step` promised: an integer array of states, one per input."""
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
