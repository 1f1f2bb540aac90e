"""Held-out compositions at fixed marginals: every operand as frequent at every place as in training.

Held-out problems differ from training problems in more than being new: by chance some operand or some answer is rarer
among them. Weights take that away, so that what is left of a difference in accuracy is the composition itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cotinterp.transcripts.problems import Problem

SWEEPS = 200


class Raked(NamedTuple):
    """Weights of mean 1 and what they could not even out.

    Attributes:
        weights: Of each problem.
        discrepancy: Largest remaining difference between two shares, over all places and the answer; 0 where all
            marginals agree. It stays large where some operand or answer does not occur among the problems at all.
        effective_n: Kish's effective number of problems, (sum of weights)^2 / sum of squared weights.
    """

    weights: Float[np.ndarray, " n"]
    discrepancy: float
    effective_n: float


def rake(problems: Sequence[Problem], reference: Sequence[Problem]) -> Raked:
    """Weights under which `problems` have the marginals of `reference`: each operand at each place, and the answer.

    Iterative proportional fitting (Deming & Stephan 1940). Both hold problems of one and the same length; ValueError
    otherwise, or where either is empty.
    """
    lengths = {problem.k for problem in (*problems, *reference)}
    if not problems or not reference or len(lengths) > 1:
        raise ValueError(
            f"marginals are compared between problems of one length; got {len(problems)} and {len(reference)} problems "
            f"of lengths {sorted(lengths)}"
        )
    own, other = _columns(problems), _columns(reference)
    weights = np.ones(len(problems))
    targets = [
        np.bincount(there, minlength=here.max() + 1) / len(there) for here, there in zip(own, other, strict=True)
    ]
    for _ in range(SWEEPS):
        for here, target in zip(own, targets, strict=True):
            share = np.bincount(here, weights, minlength=len(target)) / weights.sum()
            factor = np.divide(target, share, out=np.zeros(len(target)), where=share > 0)
            adjusted = weights * factor[here]
            if adjusted.sum() > 0:
                weights = adjusted * len(weights) / adjusted.sum()
    gap = max(
        float(np.abs(np.bincount(here, weights, minlength=len(target)) / weights.sum() - target).max())
        for here, target in zip(own, targets, strict=True)
    )
    return Raked(weights, gap, float(weights.sum() ** 2 / (weights**2).sum()))


def _columns(problems: Sequence[Problem]) -> list[Int[np.ndarray, " n"]]:
    """One column for each operand's place, and one for the answer."""
    table = np.array([(*problem.operands, problem.answer) for problem in problems])
    return list(table.T)
