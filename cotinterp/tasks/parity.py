"""Parity of a bit string."""

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.registry import register
from cotinterp.tasks.task import FoldTask


@register
class Parity(FoldTask):
    """Parity of every prefix: `1 0 1 1` -> 1, 0, 1. Commutative, and hard to learn without written steps."""

    name = "parity"
    operands = "01"
    commutative = True

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return total ^ operand
