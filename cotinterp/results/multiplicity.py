"""Many cells looked at together: what a scan may call different from nothing.

A sweep of a hundred cells finds five at the 5% level where there is nothing at all. `holm` corrects p-values whatever
their dependence; the two max-statistic tests use the dependence, and lose less where neighboring cells move together
(Westfall & Young 1993; Romano & Wolf 2005; Nichols & Holmes 2002 for the same in brain images). All control the chance
of one false finding in the whole scan; none says anything about cells that were chosen after looking at another scan of
the same data.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_DRAWN_AT_ONCE = 2**22
# Up to 2048 sign patterns are counted rather than drawn.
_ENUMERATED = 12
# In units of a cell's standard error. A cell that is 0 in all rows but one has no spread in a third of its resamples;
# without a bound from below that one cell would make the intervals of the whole scan a hundred times too wide.
_LEAST_ERROR = 0.3


@dataclass(frozen=True, eq=False)
class Simultaneous:
    """The mean of every cell, with an interval and a p-value that hold for all cells together.

    `p` is the adjusted p-value of "the mean of this cell is 0": below the level it is found at that level of the whole
    scan. NaN intervals where there are fewer than two rows.
    """

    mean: Float[np.ndarray, " cells"]
    low: Float[np.ndarray, " cells"]
    high: Float[np.ndarray, " cells"]
    p: Float[np.ndarray, " cells"]


def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values of Holm (1979): reject those at or below the level; the family error is then at most that.

    Valid under any dependence. NaN entries are no tests: they stay NaN and do not count. ValueError outside [0, 1].
    """
    known = ~np.isnan(p)
    tested = p[known]
    if tested.size and not (tested.min() >= 0 and tested.max() <= 1):
        raise ValueError(f"p-values lie in 0..1, got {tested.min():g} to {tested.max():g}")
    order = np.argsort(tested, kind="stable")
    stepped = np.maximum.accumulate(tested[order] * np.arange(len(tested), 0, -1))
    adjusted = np.full(len(p), np.nan)
    adjusted[np.flatnonzero(known)[order]] = np.minimum(stepped, 1.0)
    return adjusted


def max_statistic(
    values: Float[np.ndarray, "cells n"], *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Simultaneous:
    """Which cells' means differ from 0, with the largest studentized mean of the whole scan as the yardstick.

    Rows are the independent units (problems, or trained models), the same in every cell. `sign_flip_p` gives the
    p-values, `simultaneous_half_width` the intervals; the two are different tests and may disagree at the edge. A cell
    whose values are all 0 has mean 0, interval (0, 0) and p-value 1.

    ValueError for values that are not finite.
    """
    cells, n = values.shape
    p = sign_flip_p(values, n_resamples=n_resamples, seed=seed)
    if n < 2:
        missing = np.full(cells, np.nan)
        return Simultaneous(values.mean(axis=1) if n else missing, missing, missing, p)
    mean = values.mean(axis=1)
    half = simultaneous_half_width(values, level=level, n_resamples=n_resamples, seed=seed)
    return Simultaneous(mean, mean - half, mean + half, p)


def sign_flip_p(
    values: Float[np.ndarray, "cells n"], *, n_resamples: int = 2000, seed: int = 0
) -> Float[np.ndarray, " cells"]:
    """Adjusted p-value of "the mean of this cell is 0": the share of sign flips whose largest |t| reaches the cell's.

    The signs of whole rows are flipped, which is exact where, with nothing there, a row (all of its cells together) is
    as likely to have its values as their negatives. With n rows no p-value is below 1 / 2^(n-1), so below 6 rows
    nothing can be found at 5%. Up to 12 rows every flip is counted, beyond that `n_resamples` are drawn, and the
    p-value is valid for any number of them. NaN below two rows. ValueError for values that are not finite.
    """
    cells, n = _finite(values).shape
    if n < 2 or not cells:
        return np.full(cells, np.nan)
    square = (values**2).mean(axis=1)
    # Rounding must not make a flip that leaves everything in place count as smaller than what was observed.
    observed = (1 - 1e-12) * _t(values.mean(axis=1), square, n)
    if n <= _ENUMERATED:
        # n rows have 2^(n-1) sign patterns up to a common sign; the first of them leaves everything in place.
        patterns = 1.0 - 2.0 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)
        peaks = _t(patterns @ values.T / n, square, n).max(axis=1)
        return np.asarray((peaks[None] >= observed[:, None]).mean(axis=1))
    rng, drawn = np.random.default_rng(seed), []
    for size in _blocks(n_resamples, max(n, cells)):
        signs = rng.choice([-1.0, 1.0], size=(size, n))
        drawn.append(_t(signs @ values.T / n, square, n).max(axis=1))
    peaks = np.sort(np.concatenate(drawn))
    reached = len(peaks) - np.searchsorted(peaks, observed, side="left")
    return np.asarray((1 + reached) / (1 + len(peaks)))


def simultaneous_half_width(
    values: Float[np.ndarray, "cells n"], *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Float[np.ndarray, " cells"]:
    """How far each cell's mean may be off so that all cells together are covered at the level.

    The bootstrap of the largest studentized deviation over cells (Romano & Wolf 2005), times each cell's own standard
    error: 0 for a cell without spread. Approximate, from about 8 rows on; NaN below two. ValueError for values that are
    not finite, and for a level outside 0..1.
    """
    cells, n = _finite(values).shape
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}; 0.95 is the usual choice")
    if n < 2:
        return np.full(cells, np.nan)
    error = values.std(axis=1, ddof=1) / np.sqrt(n)
    moving = error > 0
    if not moving.any():
        return np.zeros(cells)
    centered = (values[moving] - values[moving].mean(axis=1, keepdims=True)) / error[moving, None]
    square = (centered**2).T
    rng, peaks = np.random.default_rng(seed), []
    for size in _blocks(n_resamples, max(n, cells)):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=size) / n
        means = weights @ centered.T
        # Studentized with the resample's own error, so that the interval keeps its level at few rows.
        own = np.sqrt(np.maximum(weights @ square - means**2, 0.0) / (n - 1))
        peaks.append((np.abs(means) / np.maximum(own, _LEAST_ERROR)).max(axis=1))
    return np.asarray(np.quantile(np.concatenate(peaks), level) * error)


def exchange_test(
    observed: Float[np.ndarray, " cells"], null: Float[np.ndarray, "draws cells"]
) -> Float[np.ndarray, " cells"]:
    """Adjusted p-value of each cell's statistic against statistics recomputed on exchangeable relabelings.

    `null[i]` are all cells under the i-th relabeling (shuffled labels, control labels): if nothing is there, the true
    labeling is one more of them, so the rank of an observed cell among the scans' maxima is uniform and the test is
    exact, with no assumption on the statistic. Large values count, so the cells must be of one scale: standardize them
    where they are not. At least 19 draws are needed to find anything at 5%. ValueError without draws, for cells that do
    not match, and for values that are not finite (a NaN would be below every maximum, or above).
    """
    if not len(null):
        raise ValueError("an exchange test needs at least one relabeling; 19 are the fewest that can reach p = 0.05")
    if null.shape[1:] != observed.shape:
        raise ValueError(f"{len(observed)} cells were observed and {null.shape[1]} relabeled: give the same cells.")
    _finite(observed)
    _finite(null)
    if not len(observed):
        return np.zeros(0)
    peaks = null.max(axis=1)
    p: Float[np.ndarray, " cells"] = (1 + (peaks[:, None] >= observed[None]).sum(axis=0)) / (1 + len(peaks))
    return p


def _t(
    mean: Float[np.ndarray, "*draws cells"], square: Float[np.ndarray, " cells"], n: int
) -> Float[np.ndarray, "*draws cells"]:
    """|t| of a mean, given the mean square of the rows (which flipping signs leaves alone)."""
    variance = np.maximum(square - mean**2, 0.0) / (n - 1)
    floor = 1e-12 * square
    safe = np.where(square > 0, np.sqrt(variance + floor), 1.0)
    t: Float[np.ndarray, ...] = np.abs(mean) / safe
    return t


def _blocks(total: int, width: int) -> Iterator[int]:
    """Sizes of the pieces in which `total` resamples are drawn, so that a long scan fits in memory."""
    if total < 1:
        raise ValueError(f"n_resamples must be positive, got {total}")
    block = max(1, _DRAWN_AT_ONCE // width)
    yield from (min(block, total - done) for done in range(0, total, block))


def _finite(values: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    missing = int((~np.isfinite(values)).sum())
    if missing:
        raise ValueError(f"{missing} of {values.size} values are not finite; drop those rows and report how many")
    return values
