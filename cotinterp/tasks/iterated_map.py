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


@register
class PolynomialMod11(FoldTask):
    """Iterated polynomial s -> s * x + 1 (mod 11); 10 is written `A`. `3 4 5` -> 13 = 2, then 11 = 0.

    One of the three tasks of Cabannes et al. 2024 (arXiv 2406.02128); here the first operand is the first state. Not
    commutative. Every x but 0 permutes the states; x = 0 forgets them, so that no more than the operands since the last
    0 matter.
    """

    name = "polynomial-mod11"
    operands = "0123456789A"
    commutative = False

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return (total * operand + 1) % 11
