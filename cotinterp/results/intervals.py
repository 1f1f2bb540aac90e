"""How far to trust a rate or a mean: intervals over examples or over trained models, whichever the rows are.

An interval says what resampling the same kind of row would do. Rows that are not independent (positions of one problem,
problems of one model) make it too narrow; intervals over examples say nothing about other seeds.
"""

from collections.abc import Callable, Iterator
from operator import index
from statistics import NormalDist
from typing import NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Float, Int

_RESAMPLED_AT_ONCE = 2**22


class Interval(NamedTuple):
    """Lower and upper end, in the units of the number that it surrounds; both NaN where there is nothing to go by."""

    low: float
    high: float


class Intervals(NamedTuple):
    """The same for a row of numbers: one lower and one upper end for each cell."""

    low: Float[np.ndarray, " cells"]
    high: Float[np.ndarray, " cells"]


def wilson(successes: SupportsIndex, n: SupportsIndex, level: float = 0.95) -> Interval:
    """Score interval for a success rate: the rates that `successes` of `n` would not reject (Wilson, 1927).

    Unlike the textbook `p +- z * se` it stays inside [0, 1] and has width at 0 of n and n of n, where toy models often
    are. Assumes independent rows with one common rate. (NaN, NaN) at n = 0. `ValueError` for counts that cannot be.
    """
    hits, total = index(successes), index(n)
    if not 0 <= hits <= total:
        raise ValueError(f"successes must lie in 0..n, got {hits} of {total}")
    if total == 0:
        return Interval(np.nan, np.nan)
    z = NormalDist().inv_cdf(_tails(level)[1])
    rate, weight = hits / total, z**2 / total
    center = (rate + weight / 2) / (1 + weight)
    half = z / (1 + weight) * float(np.sqrt(rate * (1 - rate) / total + weight / (4 * total)))
    # At the ends the interval touches 0 or 1 exactly; rounding would leave 1e-17 there.
    return Interval(0.0 if hits == 0 else center - half, 1.0 if hits == total else center + half)


def bootstrap(
    values: Float[np.ndarray, " n"],
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    level: float = 0.95,
    statistic: Callable[..., np.ndarray] = np.mean,
) -> Interval:
    """Percentile bootstrap interval of `statistic` over rows drawn with replacement (Efron, 1979).

    `statistic` is called as `statistic(resamples, axis=-1)`. Equal arguments give equal intervals. Below about 20 rows
    the percentile interval of a mean is known to be too narrow; with fewer than two rows it is (NaN, NaN), because one
    row says nothing about spread. `ValueError` where a value is not finite: drop such rows, and count them, beforehand.
    """
    values = _finite(values)
    if len(values) < 2:
        return Interval(np.nan, np.nan)
    draws = [statistic(values[rows], axis=-1) for rows in _resamples(len(values), n_resamples, seed)]
    low, high = np.quantile(np.concatenate(draws), _tails(level))
    return Interval(float(low), float(high))


def bootstrap_means(
    values: Float[np.ndarray, "cells n"], *, seed: int = 0, n_resamples: int = 2000, level: float = 0.95
) -> Intervals:
    """`bootstrap` of the mean for every cell of a sweep at once, with the same rows redrawn in each cell.

    Row i of the answer equals `bootstrap(values[i], seed=seed)`, a hundred times sooner for a thousand cells. Because
    the draws are shared the cells' intervals move together, as they must where one set of examples fills all cells.
    """
    values = _finite(values)
    cells, n = values.shape
    if n < 2:
        return Intervals(np.full(cells, np.nan), np.full(cells, np.nan))
    means = []
    for rows in _resamples(n, n_resamples, seed):
        flat = rows + n * np.arange(len(rows))[:, None]
        counts = np.bincount(flat.ravel(), minlength=rows.size).reshape(rows.shape)
        means.append(values @ counts.T / n)
    low, high = np.quantile(np.concatenate(means, axis=1), _tails(level), axis=1)
    return Intervals(low, high)


def _resamples(n: int, n_resamples: int, seed: int) -> Iterator[Int[np.ndarray, "resamples n"]]:
    """Row numbers drawn with replacement, in blocks that keep memory bounded for long columns."""
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be positive, got {n_resamples}")
    rng = np.random.default_rng(seed)
    block = max(1, _RESAMPLED_AT_ONCE // n)
    for done in range(0, n_resamples, block):
        yield rng.integers(n, size=(min(block, n_resamples - done), n))


def _finite(values: Float[np.ndarray, "*cells n"]) -> Float[np.ndarray, "*cells n"]:
    missing = int((~np.isfinite(values)).sum())
    if missing:
        raise ValueError(f"{missing} of {values.size} values are NaN or infinite; drop those rows and report how many")
    return values.astype(np.float64, copy=False)


def _tails(level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}; 0.95 is the usual choice")
    return (1 - level) / 2, (1 + level) / 2
