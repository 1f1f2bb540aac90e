"""Iterated maps on residues, where the order of the operands matters."""

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.registry import register
from cotinterp.tasks.task import FoldTask


@register
class AffineMod10(FoldTask):
    """Iterated map s -> (3 + x) * s + x**2 (mod 10). Not commutative, and not injective in s for every x."""

    name = "affine-mod10"
    operands = "0123456789"
    commutative = False

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return ((3 + operand) * total + operand**2) % 10
