"""Many cells looked at together: which of them a sweep may call different from nothing.

The largest of a hundred cells is large by chance. A scan gives each cell an interval that holds for all cells at once
and a p-value adjusted for their number, with the sweep's own dependence (max-statistic; Westfall & Young 1993, Romano &
Wolf 2005). Cells declared beforehand are corrected among themselves only, and then say nothing about the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cotinterp.mechanism.effects import kept_pairs
from cotinterp.results.multiplicity import sign_flip_p, simultaneous_half_width

TOLD_APART = 0.5
"""A scan explains a behavior: it flags nothing where the model's first prediction follows the change in fewer pairs."""
# Standard errors that the mean gap must be away from 0 for a ratio to it to have an interval.
_SOUND_GAP = 1.96


@dataclass(frozen=True, eq=False)
class Scan:
    """Effect, simultaneous interval and adjusted p-value of every cell; `n` pairs were used, `dropped` had no gap."""

    effect: Float[np.ndarray, " cells"]
    ci_low: Float[np.ndarray, " cells"]
    ci_high: Float[np.ndarray, " cells"]
    p: Float[np.ndarray, " cells"]
    n: int
    dropped: int


def scan_effects(
    change: Float[np.ndarray, "cells batch"],
    gap: Float[np.ndarray, " batch"],
    families: Sequence[Sequence[int]] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    n_resamples: int = 2000,
) -> Scan:
    """mean(change) / mean(gap) of every cell, corrected within each family of cells (by default all are one).

    p: "the mean change of this cell is 0", by flipping the signs of whole examples. For the logit difference that null
    is exact: exchanging answer and foil of an example negates its change in every cell, and its gap; where a patch has
    nothing to do with which of the two tokens is right, either labeling is as likely, and so is every pattern of signs.
    Pairs are dropped by the size of their gap, which no flip changes. Other metrics are not negated by the exchange:
    there the test assumes that a change of no meaning is symmetric about 0. The null is about examples of *one* model:
    a model with random weights does have effects, of no meaning, that enough examples bring out (see `TOLD_APART`).

    Intervals: bootstrap of the largest studentized deviation of the ratio, linearized at its estimate (each example
    contributes (change - effect * gap) / mean gap), so that a cell that closes the same share of every gap has no
    width. NaN where the mean gap is not clearly away from 0, and below two pairs. They and the p-values are two
    different approximations and may disagree at the edge.

    NoGapError where there is nothing to normalize by.
    """
    keep = kept_pairs(change, gap)
    change, gap = change[:, keep], gap[keep]
    n = len(gap)
    effect = np.array([row.sum() / gap.sum() for row in change], dtype=np.float64) + 0.0
    deviation = (change - effect[:, None] * gap) / gap.mean()
    p, half = (np.full(len(change), np.nan) for _ in range(2))
    sound = n > 1 and abs(gap.mean()) >= _SOUND_GAP * gap.std(ddof=1) / np.sqrt(n)
    for family in [range(len(change))] if families is None else families:
        cells = np.array(family, dtype=np.int64)
        p[cells] = sign_flip_p(change[cells], n_resamples=n_resamples, seed=seed)
        if sound:
            half[cells] = simultaneous_half_width(deviation[cells], level=level, n_resamples=n_resamples, seed=seed)
    return Scan(effect, effect - half, effect + half, p, n, len(keep) - n)
