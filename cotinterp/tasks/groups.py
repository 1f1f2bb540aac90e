"""Words in finite groups: the contrast that a sum cannot give.

`z6` and `s3` have the same order, symbols and transcripts; only the second is non-commutative. `z60`, `a4xz5` and
`a5` are the same at order 60, where `a5` is not even solvable (Barrington 1989; Merrill et al. 2024, arXiv 2404.08819).
"""

import string
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import permutations, product
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.registry import register
from cotinterp.tasks.task import FoldTask

Element = TypeVar("Element")
Permutation = tuple[int, ...]

SYMBOLS = (
    string.digits
    + string.ascii_uppercase
    + string.ascii_lowercase
    + "".join(chr(code) for code in range(0xC0, 0x100) if chr(code).isalpha())
)


def compose(first: Permutation, then: Permutation) -> Permutation:
    """The permutation that applies `first` and then `then`: i -> then[first[i]]."""
    return tuple(then[image] for image in first)


def is_even(permutation: Permutation) -> bool:
    """Whether the number of inversions is even."""
    n = len(permutation)
    return sum(permutation[i] > permutation[j] for i in range(n) for j in range(i + 1, n)) % 2 == 0


def cayley_table(elements: Sequence[Element], multiply: Callable[[Element, Element], Element]) -> np.ndarray:
    """Entry [a, b] is the index of `elements[a]` times `elements[b]`."""
    index = {element: i for i, element in enumerate(elements)}
    return np.array([[index[multiply(a, b)] for b in elements] for a in elements], dtype=np.int64)


class Group(FoldTask):
    """The product of a word, left to right: s_j = s_{j-1} x_j. Element 0 is the identity; one symbol an element."""

    @abstractmethod
    def multiplication(self) -> Int[np.ndarray, "order order"]:
        """The Cayley table: entry [a, b] is the index of element a times element b."""

    @cached_property
    def table(self) -> Int[np.ndarray, "order order"]:
        """The Cayley table, computed once."""
        return self.multiplication()

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        product: Int[np.ndarray, " n"] = self.table[total, operand]
        return product


class CyclicGroup(Group):
    """Addition modulo the order."""

    commutative = True

    def multiplication(self) -> Int[np.ndarray, "order order"]:
        order = self.n_operands
        return cayley_table(range(order), lambda a, b: (a + b) % order)


class PermutationGroup(Group):
    """Composition of permutations, elements in lexicographic order: the left factor acts first."""

    commutative = False
    elements: tuple[Permutation, ...]

    def multiplication(self) -> Int[np.ndarray, "order order"]:
        return cayley_table(self.elements, compose)


@register
class Z6(CyclicGroup):
    """Cyclic group of order 6: the abelian partner of `s3`."""

    name = "z6"
    operands = SYMBOLS[:6]


@register
class Z60(CyclicGroup):
    """Cyclic group of order 60: the abelian partner of `a5` and `a4xz5`."""

    name = "z60"
    operands = SYMBOLS[:60]


@register
class S3(PermutationGroup):
    """Permutations of 3 things, order 6: the smallest non-abelian group, solvable."""

    name = "s3"
    operands = SYMBOLS[:6]
    elements = tuple(permutations(range(3)))


@register
class S5(PermutationGroup):
    """Permutations of 5 things, order 120: not solvable."""

    name = "s5"
    operands = SYMBOLS[:120]
    elements = tuple(permutations(range(5)))


@register
class S5Words(FoldTask):
    """Words of three elements of `s5`, nothing, a swap and a cycle of five, which generate all 120.

    As hard as `s5` by the length of the word, with 360 steps to learn in place of its 14,400.
    """

    name = "s5-words"
    generators: tuple[Permutation, ...] = ((0, 1, 2, 3, 4), (1, 0, 2, 3, 4), (1, 2, 3, 4, 0))
    operands = "".join(SYMBOLS[S5.elements.index(one)] for one in generators)
    states = tuple(S5.operands)
    commutative = False

    @cached_property
    def products(self) -> Int[np.ndarray, "states operands"]:
        """Entry [s, x] is the index of state s times operand x."""
        return S5().table[:, self.initial(np.arange(self.n_operands))]

    def initial(self, operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return np.array([S5.elements.index(one) for one in self.generators])[operand]

    def step(self, total: Int[np.ndarray, " n"], operand: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        product: Int[np.ndarray, " n"] = self.products[total, operand]
        return product


@register
class A5(PermutationGroup):
    """Even permutations of 5 things, order 60: the smallest non-solvable group."""

    name = "a5"
    operands = SYMBOLS[:60]
    elements = tuple(p for p in permutations(range(5)) if is_even(p))


@register
class A4xZ5(Group):
    """Pairs of an even permutation of 4 things and a residue mod 5, order 60: non-abelian, solvable."""

    name = "a4xz5"
    operands = SYMBOLS[:60]
    commutative = False

    def multiplication(self) -> Int[np.ndarray, "order order"]:
        even = [p for p in permutations(range(4)) if is_even(p)]
        return cayley_table(list(product(even, range(5))), lambda a, b: (compose(a[0], b[0]), (a[1] + b[1]) % 5))
