"""What a law of depth leaves over: does K* still rise or fall with depth once the law is taken off?

The weights say which of four laws is best. A head start (K* = 4 + L) is none of them, and with noise the flat law can
be best of the four while depth plainly helps. A trend that is added to the law finds that.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import f as f_distribution

from cotinterp.sweeps.law_fit import DROP, SIGMA_MAX, LawFit, log_probability
from cotinterp.sweeps.laws import Observed, level

GROWTHS = np.linspace(-2.5, 2.5, 51)
"""log2 of the factors that are tried."""
THETAS, SIGMAS = 81, 12


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


def leftover_trend(data: Observed, fit: LawFit) -> Trend:
    """The trend that remains when log2 K* = law + slope * (L - least depth) is fitted with theta and sigma free.

    The constant law's c stays where the fit has it; depths from which everything is solved can show no trend. A trend
    says that the law is not so; that there is none says only that these runs do not show one.
    """
    lowest, depth = float(data.depths[0]), data.depth.astype(float)
    away = (depth - lowest) / max(1.0, float(data.depths[-1]) - lowest)
    thetas, sigmas = np.linspace(0.0, data.top, THETAS), np.geomspace(data.resolution, SIGMA_MAX, SIGMAS)
    means = level(fit.law, thetas[None, :, None], depth[:, None, None], lowest, fit.enough)
    profile = np.array([_best(data, means + growth * away[:, None, None], sigmas) for growth in GROWTHS])
    none = int(np.abs(GROWTHS).argmin())
    likely = np.flatnonzero(profile >= profile.max() - DROP)
    low, high = GROWTHS[max(likely[0] - 1, 0)], GROWTHS[min(likely[-1] + 1, len(GROWTHS) - 1)]
    best = none if profile[none] == profile.max() else int(profile.argmax())
    n = int(data.informative.sum())
    ratio = np.expm1(2 * (profile.max() - profile[none]) / max(1, n))
    p = float(f_distribution.sf(ratio * (n - 2), 1, n - 2)) if n > 2 else 1.0
    return Trend(float(2 ** GROWTHS[best]), float(2**low), float(2**high), p)


def _best(data: Observed, means: Float[np.ndarray, "runs thetas 1"], sigmas: Float[np.ndarray, " sigmas"]) -> float:
    return float(log_probability(data, means, sigmas).sum(0).max())
