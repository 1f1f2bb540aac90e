"""What a task says of a problem in neutral terms: its steps, and how its prompt is written."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

Kind = Literal["operand", "operator", "bracket"]


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
    kind: Kind
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
