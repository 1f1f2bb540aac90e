"""Formulas: values joined by binary operations in any nesting, evaluated one operation at a time."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from cotinterp.tasks.registry import register
from cotinterp.tasks.task import (
    PromptSymbol,
    Steps,
    Task,
    bracket_symbol,
    operand_symbol,
    operator_symbol,
)

LEVELS = 1000
"""How many levels an operation is drawn from. The deeper level is carried out first, of two equal ones the left."""


class TreeTask(Task):
    """A formula of `k` values: a binary tree with `k` leaves, whose `k - 1` operations are the steps.

    A subclass sets `operands`, `operators` and `combine`. Prompts have a pair of brackets around every operation, the
    outermost too, so all trees of `k` leaves are equally long. The steps are the operations in post-order: left part,
    right part, operation. Each takes two values, of which each may be a leaf or an earlier total, and what it arrives
    at must be a value again: states are the operands.

    An operand code holds the leaf's value, the operator before the leaf, and the level of that operation:
    `value + n_values * (operator + n_operators * level)`; the first leaf has a value only. The tree is that in which
    every operation stands above those of deeper levels, and of equal levels the right one above. With all levels
    different, every order of the operations is equally likely, which is the random binary search tree: the same
    distribution as splitting a random leaf k - 1 times. Two given operations have one level in 1 of 1000 problems,
    which bends that a little to the left. At lengths with few problems (`n_problems`) sampling is uniform over them
    instead. In the canonical codes a level is the depth of the operation in its tree.
    """

    in_order = False
    brackets = "()"
    max_k = 16

    @property
    @abstractmethod
    def operators(self) -> tuple[str, ...]:
        """One symbol each; `combine` counts into them."""

    @abstractmethod
    def combine(
        self, left: Int[np.ndarray, " n"], operator: Int[np.ndarray, " n"], right: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """One operation, vectorized: indices of values and operators in, indices of values out."""

    @property
    def n_operands(self) -> int:
        return len(self.operands) * len(self.operators) * LEVELS

    def steps(self, operands: Int[np.ndarray, "n k"]) -> Steps:
        self.check_k(operands.shape[1])
        return self.resume_from(operands, np.empty((len(operands), 0), dtype=np.int64))

    def resume(self, operands: Int[np.ndarray, "n k"], step: int, total: Int[np.ndarray, " n"]) -> Steps:
        self.check_step(operands.shape[1], step)
        before = self.steps(operands).total[:, : step - 1]
        return self.resume_from(operands, np.column_stack([before, total]))

    def resume_from(self, operands: Int[np.ndarray, "n k"], written: Int[np.ndarray, "n step"]) -> Steps:
        n, k = operands.shape
        values, operators, levels = self._taken_apart(operands)
        form = _form(levels[:, 1:])
        operator = np.take_along_axis(operators[:, 1:], form.operation, axis=1)
        held = np.concatenate([values, written, np.zeros((n, k - 1 - written.shape[1]), dtype=np.int64)], axis=1)
        row = np.arange(n)
        for step in range(written.shape[1], k - 1):
            left, right = held[row, form.left[:, step]], held[row, form.right[:, step]]
            total = self.combine(left, operator[:, step], right)
            held[:, k + step] = self._inside(total, "combine", left, operator[:, step], right)
        rest = slice(written.shape[1], None)
        return Steps(
            previous=np.take_along_axis(held, form.left, axis=1)[:, rest],
            operand=np.take_along_axis(held, form.right, axis=1)[:, rest],
            total=held[:, k:][:, rest],
            operator=operator[:, rest],
        )

    def prompt(self, operands: Sequence[int]) -> Iterator[PromptSymbol]:
        n_values, n_operators = len(self.operands), len(self.operators)
        values = [code % n_values for code in operands]
        operators = [code // n_values % n_operators for code in operands]
        for kind, index, step in _outline(tuple(code // (n_values * n_operators) for code in operands[1:])):
            if kind == "operand":
                yield operand_symbol(self.operands[values[index]], index, values[index])
            elif kind == "operator":
                yield operator_symbol(self.operators[operators[index]], step)
            else:
                yield bracket_symbol(self.brackets[index], step, index)

    def canonical(self, operands: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "n k"]:
        values, operators, levels = self._taken_apart(operands)
        depth = np.zeros_like(levels)
        depth[:, 1:] = _nested(levels[:, 1:]).sum(axis=1)
        return values + len(self.operands) * (operators + len(self.operators) * depth)

    def n_problems(self, k: int) -> int:
        """Values, operators and shapes: the number of binary trees with k leaves is a Catalan number."""
        shapes = comb(2 * k - 2, k - 1) // k
        return int(len(self.operands) ** k * len(self.operators) ** (k - 1) * shapes)

    def every(self, k: int) -> Int[np.ndarray, "n k"]:
        n_values, n_operators = len(self.operands), len(self.operators)
        values = np.indices((n_values,) * k).reshape(k, -1).T
        signs = [(0, *row) for row in product(range(n_operators), repeat=k - 1)]
        parts = [
            values + n_values * (np.array(row) + n_operators * np.array([0, *depths]))
            for depths in _shapes(k - 1)
            for row in signs
        ]
        return np.concatenate(parts)

    def replacements(self, operands: Sequence[int], index: int) -> tuple[int, ...]:
        """The codes with the same operator and level, and another value: the tree stays as it is."""
        n_values = len(self.operands)
        first = operands[index] - operands[index] % n_values
        return tuple(code for code in range(first, first + n_values) if code != operands[index])

    def _taken_apart(
        self, operands: Int[np.ndarray, "n k"]
    ) -> tuple[Int[np.ndarray, "n k"], Int[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
        """Value, operator and level of every code; operator and level of the first leaf are 0, whatever it holds."""
        rest, values = np.divmod(operands, len(self.operands))
        rest[:, 0] = 0
        levels, operators = np.divmod(rest, len(self.operators))
        return values, operators, levels


class _Form(NamedTuple):
    """The trees of some problems. A value is numbered 0..k-1 if it is a leaf, else k - 1 + the step of its total."""

    operation: Int[np.ndarray, "n steps"]
    """Which operation a step carries out; operation i stands between leaves i and i + 1."""
    left: Int[np.ndarray, "n steps"]
    right: Int[np.ndarray, "n steps"]


def _nested(levels: Int[np.ndarray, "n operations"]) -> Bool[np.ndarray, "n operations operations"]:
    """Entry [:, i, j]: operation j lies below operation i in the tree."""
    n, size = levels.shape
    below = np.zeros((n, size, size), dtype=bool)
    for i in range(size):
        below[:, i, i + 1 :] = np.logical_and.accumulate(levels[:, i + 1 :] > levels[:, i, None], axis=1)
        below[:, i, :i] = np.logical_and.accumulate(levels[:, :i][:, ::-1] >= levels[:, i, None], axis=1)[:, ::-1]
    return below


def _form(levels: Int[np.ndarray, "n operations"]) -> _Form:
    below = _nested(levels)
    size = levels.shape[1]
    right_part = np.triu(below, 1).sum(axis=2)
    left_part = np.tril(below, -1).sum(axis=2)
    ended_before = np.triu(~below, 1).sum(axis=1)
    step = 1 + ended_before + right_part
    leaf = np.arange(size)
    left = np.where(left_part > 0, size + step - 1 - right_part, leaf)
    right = np.where(right_part > 0, size + step - 1, leaf + 1)
    operation = step.argsort(axis=1)
    return _Form(operation, *(np.take_along_axis(child, operation, axis=1) for child in (left, right)))


@lru_cache(maxsize=2**14)
def _outline(levels: tuple[int, ...]) -> tuple[tuple[str, int, int], ...]:
    """Every symbol of a prompt with operations of these levels: its kind, which one, and the step of its operation.

    Which one: the leaf; for an operator the leaf behind it; for a bracket 0 or 1. The step of a leaf is -1.
    """

    def part(first: int, last: int, done: int) -> Iterator[tuple[str, int, int]]:
        """The leaves `first` to `last`, before which `done` operations have been carried out."""
        if first == last:
            yield "operand", first, -1
            return
        root = min(range(last, first, -1), key=lambda leaf: levels[leaf - 1])
        step = done + last - first
        yield "bracket", 0, step
        yield from part(first, root - 1, done)
        yield "operator", root, step
        yield from part(root, last, done + root - 1 - first)
        yield "bracket", 1, step

    return tuple(part(0, len(levels), 0))


def _shapes(n_operations: int, depth: int = 0) -> Iterator[tuple[int, ...]]:
    """The depths of the operations, from left to right, in every binary tree that has so many."""
    if n_operations == 0:
        yield ()
    for root in range(n_operations):
        for left, right in product(_shapes(root, depth + 1), _shapes(n_operations - 1 - root, depth + 1)):
            yield (*left, depth, *right)


@register
class ExpressionsMod11(TreeTask):
    """`((3+4)*5)` -> 3+4 = 7, 7*5 = 2 (mod 11); 10 is written `A`.

    After the arithmetic task of Feng et al. 2023 (arXiv 2305.15408), whose expressions of 4, 5 and 6 operations are
    those of 5, 6 and 7 leaves here. What differs:

    - No division, which independent uniform leaves cannot keep from a divisor of zero.
    - Leaves and operators are uniform and independent. Feng et al. start from a uniform answer and split numbers into
      operations that give them; here a product with a 0 makes 0 the commonest answer (0.135 of the problems of 7
      leaves, against 1/11), which is what always answering 0 is worth.
    - The shape of the tree has the same distribution, but for 1 in 1000 equal levels (`TreeTask`).
    - Brackets stand around every operation, not only where precedence needs them: nothing about precedence is to be
      learned, and all expressions of one length are equally long.
    - A written step is one operation with its result. Theirs is the whole rest of the expression with one operation
      carried out, which grows with the square of the length and keeps all that is still needed at hand; here a step
      finds its values in the prompt or in earlier steps.
    """

    name = "expressions-mod11"
    operands = "0123456789A"
    commutative = False

    @property
    def operators(self) -> tuple[str, ...]:
        return ("+", "-", "*")

    def combine(
        self, left: Int[np.ndarray, " n"], operator: Int[np.ndarray, " n"], right: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        return np.choose(operator, [left + right, left - right, left * right]) % 11
