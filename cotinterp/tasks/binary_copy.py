"""The last bit of a bit string: a chain without a computation."""

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.registry import register
from cotinterp.tasks.task import FoldTask


@register
class BinaryCopy(FoldTask):
    """Each state is the bit just read: `1 0 1 1` -> 0, 1, 1, and the answer is the last bit.

    One of the three tasks of Cabannes et al. 2024 (arXiv 2406.02128). The written steps buy nothing in serial depth
    here: one layer that looks at the last operand answers. What is left of the task is to write as many steps as there
    are operands. Not commutative: the order decides which bit is last.
    """

    name = "binary-copy"
    operands = "01"
    commutative = False

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:  # noqa: ARG002
        return operand
