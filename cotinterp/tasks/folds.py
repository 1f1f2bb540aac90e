"""Folds over residues, integers and bits: digit sums, parity, copying, iterated maps."""

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


@register
class Parity(FoldTask):
    """Parity of every prefix: `1 0 1 1` -> 1, 0, 1. Commutative, and hard to learn without written steps."""

    name = "parity"
    operands = "01"
    commutative = True

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return total ^ operand


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
