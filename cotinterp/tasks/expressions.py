"""Arithmetic expressions modulo 11."""

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.registry import register
from cotinterp.tasks.trees import TreeTask


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
