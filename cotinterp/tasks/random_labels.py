"""A task that has no rule: whatever is learned about its answers is memory."""

import numpy as np
from jaxtyping import Int, UInt64

from cotinterp.tasks.groups import SYMBOLS
from cotinterp.tasks.registry import register
from cotinterp.tasks.task import Steps, Task


@register
class RandomLabels(Task):
    """A fixed random state for every operand tuple: the memorizer's task, with the symbols of `z6` and `s3`.

    The first total is the first operand, as in a group; total j is the label of the tuple x_0 .. x_j. A label is a hash
    of the whole tuple (the mixing function of SplitMix64, chained over the operands; Steele, Lea & Flood 2014,
    doi 10.1145/2660193.2660195), uniform over the states, and tells nothing about the label of any other tuple. On
    problems that a model was not trained on, its answers can be right by chance only (after Zhang et al. 2016, arXiv
    1611.03530).

    There is no transition: a label follows from the operands, not from the label before it. `resume` therefore copies
    an edited total where the next step begins and goes on with the labels of the prompt. Whoever reads a trace and
    whoever recomputes it arrive at the same answer, so no edit of a total can tell the two apart here.
    """

    name = "random-labels"
    operands = SYMBOLS[:6]
    commutative = False

    def steps(self, operands: Int[np.ndarray, "n k"]) -> Steps:
        self.check_k(operands.shape[1])
        total = _labels(operands, self.n_states)
        previous = np.concatenate([operands[:, :1], total[:, :-1]], axis=1)
        return Steps(previous=previous, operand=operands[:, 1:], total=total)

    def resume(self, operands: Int[np.ndarray, "n k"], step: int, total: Int[np.ndarray, " n"]) -> Steps:
        self.check_step(operands.shape[1], step)
        rest = _labels(operands, self.n_states)[:, step:]
        previous = np.concatenate([total[:, None], rest], axis=1)[:, :-1]
        return Steps(previous=previous, operand=operands[:, step + 1 :], total=rest)


def _labels(operands: Int[np.ndarray, "n k"], n_states: int) -> Int[np.ndarray, "n steps"]:
    """The label of every prefix of two operands or more."""
    state = np.zeros(len(operands), dtype=np.uint64)
    labels = []
    for operand in operands.T:
        state = _mix(state + operand.astype(np.uint64) + np.uint64(1))
        labels.append((state % np.uint64(n_states)).astype(np.int64))
    return np.stack(labels[1:], axis=1)


def _mix(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """One output of SplitMix64 from state x: a bijection of 64 bits in which every bit depends on every other."""
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
