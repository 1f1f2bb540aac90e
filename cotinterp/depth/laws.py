"""Rival laws of depth: how the longest solvable problem, K*, grows with the number of layers, L.

- `linear`: K* = 1 + b L. Each layer adds as many operands; the source of the hypothesis says b = 1.
- `logarithmic`: K* = 2^(b L). Depth log2 K is enough, for each level of a tree shortens the word by a factor (every
  finite automaton: Liu et al. 2022, arXiv 2210.10749; transformers of log depth: Merrill & Sabharwal 2025, arXiv
  2503.03961).
- `constant`: from some depth c on every length is solved, and K* = k0 below (Liu et al. 2022, solvable automata).
- `none`: K* = k0 at every L. Depth buys nothing.

All begin with the same free number, `theta` = log2 K* at the least depth tried, and then go their own ways: with no
further intercept they differ in shape alone, where laws with one each could all imitate one another over a
handful of depths. Without layers the first two have K* = 1. theta lies between 0 and the longest length measured: a
bounded law that binds at no depth is, within the measured lengths, the constant one.

A run's own log2 K* is normal around the law's, and is seen through the grid of measured lengths: a run solves K where
its K* is at least K - 1/2. So K* lies between the frontier and the next length, below the shortest where nothing is
solved, and above the frontier where all is (interval, left and right censoring).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from cotinterp.depth.frontier import CONVERGED, MEASURED

Law = Literal["linear", "logarithmic", "constant", "none"]
Treatment = Literal["as trained", "censored"]
LAWS: tuple[Law, ...] = ("linear", "logarithmic", "constant", "none")
TREATMENTS: tuple[Treatment, ...] = ("as trained", "censored")


@dataclass(frozen=True, eq=False)
class FrontierIntervals:
    """What the runs say about log2 K*, one entry for each run.

    Attributes:
        depth: Layers.
        low, high: Ends of the interval that log2 K* lies in; minus and plus infinity where it is open.
        share: Of the outcomes that the measured lengths allow, those inside the interval; what a run that went wrong
            for no reason of depth would be expected to show.
        top: log2 of the longest measured length, less half a length.
        resolution: Standard deviation of a number that is uniform over the mean interval between measured lengths.
    """

    depth: Int[np.ndarray, " runs"]
    low: Float[np.ndarray, " runs"]
    high: Float[np.ndarray, " runs"]
    share: Float[np.ndarray, " runs"]
    top: float
    resolution: float

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths tried, ascending."""
        return tuple(int(depth) for depth in np.unique(self.depth))

    @property
    def informative(self) -> Bool[np.ndarray, " runs"]:
        """Whether a run excludes anything."""
        return np.asarray(np.isfinite(self.low) | np.isfinite(self.high))


def frontier_intervals(runs: pd.DataFrame, treatment: Treatment) -> FrontierIntervals:
    """The intervals of log2 K* of runs of one frontier over depth; runs that were not measured are left out.

    Args:
        runs: Rows of `FrontierResult.frame()`.
        treatment: `as trained` takes the frontier at this budget as observed; `censored` takes that of a run that had
            not converged as a lower bound, for more training could move it.

    Raises:
        ValueError: No run was measured.
    """
    runs = runs[runs["convergence"].isin(MEASURED)]
    if runs.empty:
        raise ValueError("no run was measured: train and evaluate the sweep, then collect it")
    reached, following = runs["frontier"].to_numpy(dtype=float), runs["next_k"].to_numpy(dtype=float)
    open_above = following < 0
    if treatment == "censored":
        open_above |= ~runs["convergence"].isin(CONVERGED).to_numpy()
    low = np.where(reached > 0, _edge(reached), -np.inf)
    high = np.where(open_above, np.inf, _edge(following))
    lengths, solved = runs["lengths"].to_numpy(dtype=float), runs["solved"].to_numpy(dtype=float)
    share = np.where(open_above, lengths - solved + 1, 1.0) / (lengths + 1)
    k_low, k_top = float(runs["k_low"].min()), float(runs["k_top"].max())
    width = (np.log2(k_top + 0.5) - _edge(np.array([k_low]))[0]) / float(runs["lengths"].max())
    top = float(_edge(np.array([k_top]))[0])
    return FrontierIntervals(runs["n_layers"].to_numpy(dtype=int), low, high, share, top, float(width / np.sqrt(12)))


def _edge(k: Float[np.ndarray, " runs"]) -> Float[np.ndarray, " runs"]:
    """log2 of where a length begins to be solved; lengths below 1 are placeholders."""
    return np.asarray(np.log2(np.maximum(k, 1.0) - 0.5))


def log2_longest(
    law: Law,
    theta: Float[np.ndarray, "*#cells"],
    depth: Float[np.ndarray, "*#cells"],
    lowest: float,
    enough: float = np.inf,
) -> Float[np.ndarray, "*#cells"]:
    """log2 K* at `depth` where it is `theta` at the depth `lowest`; the two are broadcast against each other.

    `enough` is the constant law's c, from which K* is infinite; the other laws do not read it.
    """
    if law == "linear":
        return np.asarray(np.log2(1 + (2**theta - 1) * depth / lowest))
    if law == "logarithmic":
        return np.asarray(theta * depth / lowest)
    return np.where(depth >= enough, np.inf, theta) if law == "constant" else np.asarray(theta + 0 * depth)


def law_parameter(law: Law, theta: float, lowest: float) -> float:
    """The law's own parameter: b of `linear` (operands a layer) and `logarithmic` (levels a layer), else k0."""
    if law == "linear":
        return float(2**theta - 1) / lowest
    return theta / lowest if law == "logarithmic" else float(2**theta)


def consistent_laws(expressed: pd.DataFrame) -> tuple[Law, ...]:
    """The laws that some parameter reconciles with what each depth was shown to express, in the order of LAWS.

    A depth's K* is at least its `best`; it is below its `next_k` only where LEAST_TRIES converged runs went no further
    (`tried`), which is an assumption and no proof. Without noise: this is about the best model of each depth, not about
    what training finds. Where the least depth solves every measured length, the constant law alone is left, as theta of
    the others lies within the measured lengths.

    Args:
        expressed: Rows of one task, regime and reading (`frontier.expressed`).
    """
    depth = expressed["n_layers"].to_numpy(dtype=float)
    low = np.where(expressed["best"] > 0, _edge(expressed["best"].to_numpy(dtype=float)), -np.inf)
    bound = expressed["tried"].to_numpy(dtype=bool) & (expressed["next_k"].to_numpy() >= 0)
    high = np.where(bound, _edge(expressed["next_k"].to_numpy(dtype=float)), np.inf)
    whole = expressed["next_k"].to_numpy() < 0
    if whole[depth == depth.min()].all():
        return ("constant",)
    thetas = np.linspace(0.0, float(_edge(np.array([float(expressed["k_top"].max())]))[0]), THETAS)
    found: list[Law] = []
    for law in LAWS:
        for enough in np.unique(depth) if law == "constant" else (np.inf,):
            means = log2_longest(law, thetas[:, None], depth[None, :], float(depth.min()), float(enough))
            held = (means >= low) & ((means < high) | np.isinf(high))
            if held.all(1).any() and law not in found:
                found.append(law)
    return tuple(found)


THETAS = 2001
"""Values of theta that are tried: steps of less than a hundredth of a doubling."""
