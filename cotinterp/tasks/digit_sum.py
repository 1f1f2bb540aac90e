"""Sums of digits: the reference task."""

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.registry import register
from cotinterp.tasks.task import FoldTask


@register
class DigitSum(FoldTask):
    """`3+4+5+6` -> 7, 12, 18. Totals are written in decimal, one to three symbols.

    Commutative: a left fold is one algorithm for it, a single average over the operands is another.
    """

    name = "digit-sum"
    operands = "0123456789"
    operator = "+"
    commutative = True
    max_k = 12

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(str(total) for total in range(9 * self.max_k + 1))

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return total + operand
