"""Pointer chasing: a table is given, and where it leads is asked."""

from collections.abc import Sequence
from math import lcm

import numpy as np
from jaxtyping import Int

from cotinterp.tasks.groups import SYMBOLS
from cotinterp.tasks.registry import register
from cotinterp.tasks.task import Steps, Task

LONGEST = 12


@register
class Pointers(Task):
    """Entry i of a table of K entries points to entry x_i; start at entry 0 and follow K - 1 pointers.

    `2,0,1`: entry 0 points to 2, entry 2 to 1. A step is written `0,2=2`: the entry that it stands at, the pointer read
    there, the entry that it arrives at, which is that pointer (`totals` says as much as `cot`). Not a left fold over
    the operands: step j reads the entry that step j - 1 has found, wherever that stands (random access), so its inputs
    are not known before.

    In depth: pointer doubling, in which every entry looks up where the entry that it points to points, needs about
    log2(K - 1) rounds, each with all K entries at once. That is for a model in which all entries see each other; under
    a causal mask an entry does not see the later ones. For k-hop induction heads, a chase whose pointers all lead back,
    depth logarithmic in k is sufficient (Sanford, Hsu & Telgarsky 2024, arXiv 2402.09268). One lookup a written step
    needs constant depth.

    An operand code x stands for a pointer to x mod K. There are `lcm(1, ..., 12)` codes, so every pointer is uniform at
    every length up to 12, the longest, as states and entries are one symbol each. A random table leads into a cycle
    soon: at K = 12 a chase visits 4.0 different entries on average, 0 among them. What follows once it is in the cycle
    can be had by remainders, so K - 1 bounds the serial steps and does not count them. As a chase starts at entry 0 the
    answer is 0 more often than chance in short tables (5/9 of them at K = 3, 0.34 at K = 4, 0.18 at K = 6).
    """

    name = "pointers"
    operands = SYMBOLS[:LONGEST]
    operator = ","
    commutative = False
    in_order = False
    max_k = LONGEST

    @property
    def n_operands(self) -> int:
        return lcm(*range(1, LONGEST + 1))

    def canonical(self, operands: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "n k"]:
        return operands % operands.shape[1]

    def n_problems(self, k: int) -> int:
        return k**k

    def every(self, k: int) -> Int[np.ndarray, "n k"]:
        return np.indices((k,) * k).reshape(k, -1).T

    def replacements(self, operands: Sequence[int], index: int) -> tuple[int, ...]:
        k = len(operands)
        return tuple(entry for entry in range(k) if entry != operands[index] % k)

    def steps(self, operands: Int[np.ndarray, "n k"]) -> Steps:
        self.check_k(operands.shape[1])
        return self._chase(operands, np.zeros(len(operands), dtype=np.int64), operands.shape[1] - 1)

    def resume(self, operands: Int[np.ndarray, "n k"], step: int, total: Int[np.ndarray, " n"]) -> Steps:
        self.check_step(operands.shape[1], step)
        return self._chase(operands, total, operands.shape[1] - 1 - step)

    def reachable(self, k: int) -> tuple[frozenset[int], ...]:
        self.check_k(k)
        return (frozenset({0}), *(frozenset(range(k)),) * (k - 1))

    def _chase(self, operands: Int[np.ndarray, "n k"], start: Int[np.ndarray, " n"], n_steps: int) -> Steps:
        table = self.canonical(operands)
        chain = [start]
        for _ in range(n_steps):
            chain.append(np.take_along_axis(table, chain[-1][:, None], axis=1)[:, 0])
        entries = np.stack(chain, axis=1)
        return Steps(previous=entries[:, :-1], operand=entries[:, 1:], total=entries[:, 1:])
