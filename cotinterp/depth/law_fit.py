"""Maximum likelihood of the rival laws of depth, and how they compare.

Every law has the same noise: log2 K* of a run is normal around the law with a standard deviation `sigma` of its own.
One run in twenty (LAPSE) may have any outcome, for training goes wrong for reasons other than depth; without it one bad
seed would exclude a law for which all else speaks. sigma is bounded below by the grid's resolution: seeds that agree
only because the next length is not finer would otherwise make the noise zero and any law certain or impossible.

A grid over (theta, sigma) finds the best cell, from which scipy goes on; the same grid serves every resample of the
bootstrap and the profile intervals. AIC counts the parameters that the likelihood depends on (Akaike 1974); AICc is its
correction for few runs (Hurvich & Tsai 1989), and Akaike weights are relative probabilities among these laws alone
(Burnham & Anderson 2002): the best of four may still be wrong, which `misfit` tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import ndtr
from scipy.stats import f as f_distribution

from cotinterp.depth.laws import LAWS, FrontierIntervals, Law, law_parameter, log2_longest

LAPSE = 0.05
"""Probability that a run's outcome has nothing to do with its depth; every outcome is then equally likely."""
SIGMA_MAX = 2.0
"""Largest spread among seeds: two doublings of K*."""
THETAS, SIGMAS = 161, 20
"""Cells of the grid."""
DROP = 1.92
"""Log-likelihood by which a 95% profile interval may fall below the best (half the quantile of chi squared)."""
RESAMPLES = 1000
TIE = 1e-6
"""Difference of AICc up to which two laws are equally good; they then share the resample."""
TREND_THETAS, TREND_SIGMAS = 81, 12
GROWTHS = np.linspace(-2.5, 2.5, 51)
"""log2 of the factors that are tried as a trend beyond a law."""


@dataclass(frozen=True, eq=False)
class LawTable:
    """One law with its discrete choice made: the log-probability of every run at every cell of the grid.

    Attributes:
        enough: The depth c from which the constant law solves everything; infinite for the others.
        n_parameters: Those that the likelihood depends on: theta and sigma, and c for the constant law; c alone where
            it is the least depth tried, for no run is then below it.
        log_probability: Of each run at each (theta, sigma).
    """

    law: Law
    enough: float
    n_parameters: int
    thetas: Float[np.ndarray, " thetas"]
    sigmas: Float[np.ndarray, " sigmas"]
    log_probability: Float[np.ndarray, "runs thetas sigmas"]


@dataclass(frozen=True)
class LawFit:
    """One law at its most likely parameters.

    Attributes:
        theta: log2 K* at the least depth tried; NaN where the law has no such parameter.
        enough: The depth c from which the constant law solves every measured length; infinite for the others.
        parameters: `b`, or `k0` and `c`, each with its 95% profile interval; an end that the data leave open is
            infinite.
        log_likelihood: Natural logarithm, at most 0: probabilities of intervals.
        weight, weight_aic: Akaike weights among the four, from AICc and from AIC.
        lowest: Least depth tried.
    """

    law: Law
    theta: float
    enough: float
    sigma: float
    parameters: Mapping[str, tuple[float, float, float]]
    log_likelihood: float
    n_parameters: int
    aic: float
    aicc: float
    weight: float
    weight_aic: float
    lowest: int

    def expected(self, depth: float) -> float:
        """The law's K* at a depth; infinite where every length is solved."""
        theta, at = np.array([np.nan_to_num(self.theta)]), np.array([float(depth)])
        return float(2 ** log2_longest(self.law, theta, at, float(self.lowest), self.enough)[0])


@dataclass(frozen=True, eq=False)
class LawFits:
    """All four laws on the same runs.

    Attributes:
        n: Runs that exclude anything; AICc counts these.
        misfit: For each law the p-value of "it describes the runs as well as a K* of its own at every depth" (a
            likelihood ratio, about F distributed). Small: the law misses a shape that is there.
    """

    fits: Mapping[Law, LawFit]
    misfit: Mapping[Law, float]
    n: int

    @cached_property
    def preferred(self) -> LawFit:
        """The law of the greatest weight; the first of LAWS among equals."""
        return max((self.fits[law] for law in LAWS), key=lambda fit: fit.weight)


def fit_laws(data: FrontierIntervals) -> LawFits:
    """Every law at its most likely parameters, with information criteria and Akaike weights.

    Deterministic; the order of the runs does not matter. The constant law's c is that of the lowest AICc.
    """
    n = int(data.informative.sum())
    tables = law_tables(data)
    found = {table: _maximum(table, data) for table in tables}
    best = {law: min((s for s in tables if s.law == law), key=lambda s: _aicc(found[s][2], s, n)) for law in LAWS}
    criteria = {law: (_aic(found[best[law]][2], best[law]), _aicc(found[best[law]][2], best[law], n)) for law in LAWS}
    plain, corrected = (akaike_weights({law: criteria[law][place] for law in LAWS}) for place in (0, 1))
    fits = {}
    for law in LAWS:
        table = best[law]
        theta, sigma, likelihood = found[table]
        fits[law] = LawFit(
            law,
            theta,
            table.enough,
            sigma,
            _intervals(theta, [one for one in tables if one.law == law], table, data),
            likelihood,
            table.n_parameters,
            *criteria[law],
            corrected[law],
            plain[law],
            data.depths[0],
        )
    free = _free(data)
    misfit = {law: _misfit(free, fits[law], len(data.depths), n) for law in LAWS}
    return LawFits(fits, misfit, n)


def law_tables(data: FrontierIntervals) -> tuple[LawTable, ...]:
    """Every law, the constant one once for each depth tried, tabulated over the grid."""
    thetas = np.linspace(0.0, data.top, THETAS)
    sigmas = np.geomspace(data.resolution, SIGMA_MAX, SIGMAS)
    lowest = float(data.depths[0])
    tables = []
    for law in LAWS:
        for enough in map(float, data.depths) if law == "constant" else (np.inf,):
            everywhere = enough == lowest
            means = log2_longest(law, thetas[None, :, None], data.depth[:, None, None].astype(float), lowest, enough)
            table = log_probability(data, means, sigmas)
            n_parameters = 1 if everywhere else 3 if law == "constant" else 2
            tables.append(LawTable(law, enough, n_parameters, thetas, sigmas, table))
    return tuple(tables)


def log_probability(
    data: FrontierIntervals, mean: Float[np.ndarray, "runs *_"], sigma: Float[np.ndarray, "*_"] | float
) -> Float[np.ndarray, "runs *_"]:
    """Log-probability of each run's interval where its log2 K* is normal(mean, sigma), lapses included.

    `sigma` is broadcast against what follows the first axis of `mean`. An infinite mean solves everything: its interval
    has probability 1 where it is open above, else 0.
    """
    low, high, share = (ends.reshape(-1, *(1,) * (np.ndim(mean) - 1)) for ends in (data.low, data.high, data.share))
    finite = np.where(np.isfinite(mean), mean, 0.0)
    inside = np.where(
        np.isfinite(mean), ndtr((high - finite) / sigma) - ndtr((low - finite) / sigma), np.isinf(high).astype(float)
    )
    return np.asarray(np.log((1 - LAPSE) * inside + LAPSE * share))


def akaike_weights(criteria: Mapping[Law, float]) -> dict[Law, float]:
    """Relative probabilities exp(-difference / 2); all equal where no criterion is finite."""
    values = np.array(list(criteria.values()))
    finite = np.isfinite(values)
    if not finite.any():
        return dict.fromkeys(criteria, 1 / len(values))
    raw = np.where(finite, np.exp(-(values - values[finite].min()) / 2), 0.0)
    return dict(zip(criteria, map(float, raw / raw.sum()), strict=True))


def _aic(log_likelihood: float, table: LawTable) -> float:
    return 2 * table.n_parameters - 2 * log_likelihood


def _aicc(log_likelihood: float, table: LawTable, n: int) -> float:
    """AIC with the correction for few runs; infinite where there are not more runs than parameters plus one."""
    return _aic(log_likelihood, table) + aicc_correction(table.n_parameters, n)


def aicc_correction(n_parameters: int, n: int) -> float:
    """What AICc adds to AIC."""
    left = n - n_parameters - 1
    return 2 * n_parameters * (n_parameters + 1) / left if left > 0 else float("inf")


def _maximum(table: LawTable, data: FrontierIntervals) -> tuple[float, float, float]:
    """theta, sigma and log-likelihood, from the grid's best cell on."""
    total = table.log_probability.sum(0)
    row, column = np.unravel_index(int(total.argmax()), total.shape)
    start = (float(table.thetas[row]), float(table.sigmas[column]), float(total[row, column]))
    if table.n_parameters == 1:
        return float("nan"), float("nan"), start[2]

    lowest, depth = float(data.depths[0]), data.depth.astype(float)

    def cost(place: Float[np.ndarray, "2"]) -> float:
        means = log2_longest(table.law, place[:1], depth, lowest, table.enough)
        return -float(log_probability(data, means, float(np.exp(place[1]))).sum())

    limits = [(0.0, data.top), (float(np.log(table.sigmas[0])), float(np.log(table.sigmas[-1])))]
    found = minimize(cost, [start[0], np.log(start[1])], method="L-BFGS-B", bounds=limits)
    better = -float(found.fun) > start[2]
    return (float(found.x[0]), float(np.exp(found.x[1])), -float(found.fun)) if better else start


def _intervals(
    theta: float, tables: list[LawTable], best: LawTable, data: FrontierIntervals
) -> dict[str, tuple[float, float, float]]:
    """The law's own parameters with profile intervals; those of c go over the depths that are likely enough."""
    parameters: dict[str, tuple[float, float, float]] = {}
    lowest = float(data.depths[0])
    if best.n_parameters > 1:
        profile = best.log_probability.sum(0).max(1)
        likely = np.flatnonzero(profile >= profile.max() - DROP)
        # Rounded outward to the next cell of the grid.
        first, last = max(likely[0] - 1, 0), min(likely[-1] + 1, THETAS - 1)
        low, high = (law_parameter(best.law, float(best.thetas[end]), lowest) for end in (first, last))
        name = "b" if best.law in ("linear", "logarithmic") else "k0"
        open_above = likely[-1] == THETAS - 1
        parameters[name] = (law_parameter(best.law, theta, lowest), low, float("inf") if open_above else high)
    if best.law == "constant":
        peaks = {table.enough: float(table.log_probability.sum(0).max()) for table in tables}
        likely_depths = [enough for enough, peak in peaks.items() if peak >= max(peaks.values()) - DROP]
        likely_depths.append(best.enough)
        parameters["c"] = (best.enough, min(likely_depths), max(likely_depths))
    return parameters


def _free(data: FrontierIntervals) -> float:
    """Log-likelihood of a K* of its own at every depth, with one sigma."""
    thetas = np.linspace(-2.0, data.top + 4.0, 2 * THETAS)
    sigmas = np.geomspace(data.resolution, SIGMA_MAX, SIGMAS)
    means = np.broadcast_to(thetas[:, None], (len(data.depth), len(thetas), 1))
    table = log_probability(data, means, sigmas)
    by_depth = [table[data.depth == depth].sum(0).max(0) for depth in data.depths]
    return float(np.sum(by_depth, axis=0).max())


def _misfit(free: float, fit: LawFit, depths: int, n: int) -> float:
    """p-value of a likelihood ratio, referred to F as for means with an unknown variance: runs are too few for chi
    squared. 1 where there are no more runs than depths."""
    left, freedom = n - depths, max(1, depths + 1 - fit.n_parameters)
    if left < 1:
        return 1.0
    ratio = np.expm1(max(0.0, 2 * (free - fit.log_likelihood)) / n)
    return float(f_distribution.sf(ratio * left / freedom, freedom, left))


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


def bootstrap_laws(data: FrontierIntervals, *, resamples: int = RESAMPLES, seed: int = 0) -> LawBootstrap:
    """Runs redrawn with replacement within each depth, the trained model being the unit; each resample is refitted.

    The refit is to the grid of `law_tables`, which is what makes a thousand of them a matrix product. Equal arguments
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
    for table in law_tables(data):
        likelihood = (drawn @ table.log_probability.reshape(len(table.log_probability), -1)).max(1)
        extra = np.array([aicc_correction(table.n_parameters, int(n)) for n in informative])
        aicc = 2 * table.n_parameters - 2 * likelihood + extra
        best[table.law] = np.minimum(best[table.law], aicc)
    return LawBootstrap(_shares(np.stack([best[law] for law in LAWS])), resamples)


def _shares(criteria: Float[np.ndarray, "laws resamples"]) -> dict[Law, float]:
    least = criteria.min(0)
    with np.errstate(invalid="ignore"):
        ahead = np.where(np.isfinite(least), criteria - least <= TIE, True)
    return dict(zip(LAWS, map(float, (ahead / ahead.sum(0)).mean(1)), strict=True))


def _sorted(data: FrontierIntervals) -> FrontierIntervals:
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


@dataclass(frozen=True)
class Trend:
    """The factor by which K* changes beyond a law, from the least depth tried to the greatest.

    Attributes:
        factor, low, high: Most likely value and the ends of its 95% profile interval, rounded outward; 1 is no trend.
        p: Of no trend, by a likelihood ratio referred to F; 1 where there are too few runs to ask.
    """

    factor: float
    low: float
    high: float
    p: float


def leftover_trend(data: FrontierIntervals, fit: LawFit) -> Trend:
    """The trend that remains when log2 K* = law + slope * (L - least depth) is fitted with theta and sigma free.

    Akaike weights say which of four laws is best, not that it is right. A head start (K* = 4 + L) is none of them, and
    with noise the law `none` can be the best of the four while depth plainly helps; a trend added to the law finds
    that. The constant law's c stays where the fit has it; depths from which everything is solved can show no trend. A
    trend says that the law is not so; that there is none says only that these runs do not show one.
    """
    lowest, depth = float(data.depths[0]), data.depth.astype(float)
    away = (depth - lowest) / max(1.0, float(data.depths[-1]) - lowest)
    thetas, sigmas = np.linspace(0.0, data.top, TREND_THETAS), np.geomspace(data.resolution, SIGMA_MAX, TREND_SIGMAS)
    means = log2_longest(fit.law, thetas[None, :, None], depth[:, None, None], lowest, fit.enough)
    profile = np.array([_best(data, means + growth * away[:, None, None], sigmas) for growth in GROWTHS])
    none = int(np.abs(GROWTHS).argmin())
    likely = np.flatnonzero(profile >= profile.max() - DROP)
    low, high = GROWTHS[max(likely[0] - 1, 0)], GROWTHS[min(likely[-1] + 1, len(GROWTHS) - 1)]
    best = none if profile[none] == profile.max() else int(profile.argmax())
    n = int(data.informative.sum())
    ratio = np.expm1(2 * (profile.max() - profile[none]) / max(1, n))
    p = float(f_distribution.sf(ratio * (n - 2), 1, n - 2)) if n > 2 else 1.0
    return Trend(float(2 ** GROWTHS[best]), float(2**low), float(2**high), p)


def _best(
    data: FrontierIntervals, means: Float[np.ndarray, "runs thetas 1"], sigmas: Float[np.ndarray, " sigmas"]
) -> float:
    return float(log_probability(data, means, sigmas).sum(0).max())
