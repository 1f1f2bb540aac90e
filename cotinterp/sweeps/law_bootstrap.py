"""Would another set of seeds prefer the same law? Every law refitted to redrawn runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from cotinterp.sweeps.law_fit import few_runs, law_shapes
from cotinterp.sweeps.laws import LAWS, Law, Observed

RESAMPLES = 1000
TIE = 1e-6
"""Difference of AICc up to which two laws are equally good; they then share the resample."""


@dataclass(frozen=True, eq=False)
class LawBootstrap:
    """How often each law has the lowest AICc among redrawn runs.

    Attributes:
        shares: Of the resamples, 0 to 1; they sum to 1. With two seeds at a depth there are only three different
            draws of them: a share of 1 says that no seed decides alone, not that more seeds would agree.
        resamples: How many were drawn.
    """

    shares: Mapping[Law, float]
    resamples: int


def bootstrap_laws(data: Observed, *, resamples: int = RESAMPLES, seed: int = 0) -> LawBootstrap:
    """Runs redrawn with replacement within each depth, the trained model being the unit; each resample is refitted.

    The refit is to the grid of `law_shapes`, which is what makes a thousand of them a matrix product. Equal arguments
    give equal shares, and the order of the runs does not matter.

    Raises:
        ValueError: Fewer than one resample.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be positive, got {resamples}")
    data = _sorted(data)
    drawn = _drawn(data.depth, resamples, np.random.default_rng(seed))
    informative = drawn @ data.informative.astype(int)
    best = {law: np.full(resamples, np.inf) for law in LAWS}
    for shape in law_shapes(data):
        likelihood = (drawn @ shape.table.reshape(len(shape.table), -1)).max(1)
        extra = np.array([few_runs(shape.n_parameters, int(n)) for n in informative])
        aicc = 2 * shape.n_parameters - 2 * likelihood + extra
        best[shape.law] = np.minimum(best[shape.law], aicc)
    return LawBootstrap(_shares(np.stack([best[law] for law in LAWS])), resamples)


def _shares(criteria: Float[np.ndarray, "laws resamples"]) -> dict[Law, float]:
    least = criteria.min(0)
    with np.errstate(invalid="ignore"):
        ahead = np.where(np.isfinite(least), criteria - least <= TIE, True)
    return dict(zip(LAWS, map(float, (ahead / ahead.sum(0)).mean(1)), strict=True))


def _sorted(data: Observed) -> Observed:
    order = np.lexsort((data.share, data.high, data.low, data.depth))
    return replace(data, depth=data.depth[order], low=data.low[order], high=data.high[order], share=data.share[order])


def _drawn(
    depth: Int[np.ndarray, " runs"], resamples: int, rng: np.random.Generator
) -> Int[np.ndarray, "resamples runs"]:
    """How often each run is in each resample."""
    counts = np.zeros((resamples, len(depth)), dtype=int)
    for one in np.unique(depth):
        places = np.flatnonzero(depth == one)
        counts[:, places] = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), size=resamples)
    return counts
