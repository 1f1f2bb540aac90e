"""Likelihoods worked by hand, laws found where they are so, and ties where the runs cannot tell."""

from dataclasses import replace
from math import log, log2

import numpy as np
import pandas as pd
import pytest

from cotinterp.depth.frontier import depth_frontier
from cotinterp.depth.law_fit import (
    LAPSE,
    aicc_correction,
    akaike_weights,
    bootstrap_laws,
    fit_laws,
    leftover_trend,
    log_probability,
)
from cotinterp.depth.laws import LAWS, frontier_intervals
from tests.depth.made_up_frontiers import reaching, sweep


def seen(table, treatment="as trained"):
    return frontier_intervals(depth_frontier(pd.DataFrame(table)).frame(), treatment)


def fitted(reach, treatment="as trained", **changes):
    return fit_laws(seen(sweep(reach, **changes), treatment))


def test_the_likelihood_of_two_runs_by_hand():
    """K* = 1 + 2 L, sigma 1/2; one run at L = 1 solves 3 and not 4, one at L = 2 solves all of 3 to 12.

    Inside: Phi(log2(3.5/3) / 0.5) - Phi(log2(2.5/3) / 0.5) = Phi(0.4448) - Phi(-0.5261) = 0.372342, and above:
    1 - Phi(log2(11.5/5) / 0.5) = 1 - Phi(2.4033) = 0.008125. Each outcome is one of eleven, which is what a lapse
    (one in twenty) may show: log(0.95 * 0.372342 + 0.05 / 11) = -1.026467 and log(0.95 * 0.008125 + 0.05 / 11) =
    -4.401098.
    """
    assert LAPSE == 0.05
    data = seen([*reaching(3, n_layers=1), *reaching(12, n_layers=2)])
    found = log_probability(data, np.log2([3.0, 5.0]), 0.5)
    np.testing.assert_allclose(found, [-1.026467, -4.401098], atol=1e-6)


def test_the_constant_law_by_hand():
    data = seen([*reaching(3, n_layers=1), *reaching(12, n_layers=2)])
    found = log_probability(data, np.array([np.inf, np.inf]), 0.5)
    np.testing.assert_allclose(found, [log(0.05 / 11), log(0.95 + 0.05 / 11)])


def test_all_solved_is_the_constant_law_with_one_parameter():
    found = fitted(lambda depth, seed: 12)
    fit = found.fits["constant"]
    assert fit.log_likelihood == pytest.approx(12 * log(0.95 + 0.05 / 11))
    assert (fit.n_parameters, fit.enough, found.n) == (1, 1, 12)
    assert fit.aic == pytest.approx(2 - 2 * fit.log_likelihood)
    assert fit.aicc == pytest.approx(fit.aic + 2 * 1 * 2 / (12 - 2))
    assert found.preferred is fit
    assert fit.weight > 0.9
    assert fit.expected(1.0) == np.inf


def test_nothing_solved_cannot_tell_three_laws_apart():
    found = fitted(lambda depth, seed: 0)
    weights = {law: found.fits[law].weight for law in LAWS}
    assert weights == pytest.approx({"linear": 1 / 3, "logarithmic": 1 / 3, "none": 1 / 3, "constant": 0}, abs=1e-3)


@pytest.mark.parametrize(
    ("law", "reach", "name", "value"),
    [
        ("linear", lambda depth, seed: 1 + 2 * depth, "b", 2),
        ("linear", lambda depth, seed: 1 + 2 * depth + (seed == 0) - (seed == 1), "b", 2),
        ("logarithmic", lambda depth, seed: [0, 5, 10, 12][depth - 1], "b", 1.1),
        ("none", lambda depth, seed: 5, "k0", 5),
        ("constant", lambda depth, seed: 5 if depth < 3 else 12, "c", 3),
    ],
)
def test_the_law_that_is_so_is_preferred_and_its_parameter_is_inside_the_interval(law, reach, name, value):
    fits = fitted(reach)
    fit = fits.fits[law]
    assert fits.preferred is fit
    assert fit.weight > 0.9
    assert fits.misfit[law] > 0.05
    estimate, low, high = fit.parameters[name]
    assert low <= value <= high
    assert low <= estimate <= high


def test_the_optimum_is_not_below_any_cell_of_a_finer_grid():
    data = seen(sweep(lambda depth, seed: 1 + 2 * depth + (seed == 0)))
    fit = fit_laws(data).fits["linear"]
    depth = data.depth[:, None, None]
    means = np.log2(1 + np.linspace(1.5, 3, 300)[:, None] * depth)
    brute = log_probability(data, means, np.geomspace(data.resolution, 1, 100)).sum(0).max()
    assert fit.log_likelihood >= brute - 1e-4
    assert fit.log_likelihood == pytest.approx(brute, abs=0.02)


def test_the_noise_is_never_below_the_resolution_of_the_grid():
    data = seen(sweep(lambda depth, seed: 5))
    assert fit_laws(data).fits["none"].sigma >= data.resolution * (1 - 1e-9)


def test_a_head_start_is_none_of_the_four_and_says_so():
    found = fitted(lambda depth, seed: 4 + depth)
    assert all(found.misfit[law] < 0.01 for law in LAWS)


def test_unconverged_runs_alone_cannot_prefer_a_bounded_law():
    def reach(depth, seed):
        return 1 + 2 * depth

    trained, censored = (fitted(reach, treatment, convergence="improving") for treatment in ("as trained", "censored"))
    assert trained.preferred.law == "linear"
    assert trained.preferred.weight > 0.9
    assert censored.preferred.law == "constant"
    assert censored.preferred.weight < 0.7


def test_the_order_of_the_runs_does_not_matter():
    data = seen(sweep(lambda depth, seed: 1 + 2 * depth + seed))
    order = np.random.default_rng(0).permutation(len(data.depth))
    moved = replace(data, depth=data.depth[order], low=data.low[order], high=data.high[order], share=data.share[order])
    one, other = fit_laws(data), fit_laws(moved)
    for law in LAWS:
        assert one.fits[law].weight == pytest.approx(other.fits[law].weight, abs=1e-6)


def test_akaike_weights_by_hand():
    found = akaike_weights({"linear": 2.0, "logarithmic": 4.0, "constant": np.inf, "none": 2.0})
    least = 1 / (2 + np.exp(-1))
    assert found == pytest.approx({"linear": least, "logarithmic": np.exp(-1) * least, "constant": 0, "none": least})
    assert set(akaike_weights(dict.fromkeys(LAWS, np.inf)).values()) == {0.25}


def test_few_runs_cost_parameters():
    assert aicc_correction(3, 12) == 3
    assert aicc_correction(2, 3) == np.inf


def test_one_depth_cannot_tell_growth():
    found = fitted(lambda depth, seed: 5, depths=(2,))
    three = [found.fits[law].log_likelihood for law in ("linear", "logarithmic", "none")]
    assert three == pytest.approx([three[0]] * 3)
    assert found.fits["linear"].parameters["b"][0] == pytest.approx(2, abs=0.1)
    assert log2(found.fits["none"].expected(9.0)) == pytest.approx(log2(5), abs=0.1)


def as_trained(reach, **changes):
    return frontier_intervals(depth_frontier(sweep(reach, **changes)).frame(), "as trained")


def test_one_run_at_each_depth_leaves_nothing_to_redraw():
    data = as_trained(lambda depth, seed: 1 + 2 * depth, seeds=1, depths=(1, 2, 3, 4, 5))
    assert bootstrap_laws(data, resamples=20).shares[fit_laws(data).preferred.law] == 1


def test_equal_seeds_give_equal_shares_and_order_does_not_matter():
    data = as_trained(lambda depth, seed: 4 + 2 * seed + (depth > 2))
    order = np.random.default_rng(1).permutation(len(data.depth))
    moved = replace(data, depth=data.depth[order], low=data.low[order], high=data.high[order], share=data.share[order])
    one, other = bootstrap_laws(data, resamples=60), bootstrap_laws(moved, resamples=60)
    assert one.shares == other.shares == bootstrap_laws(data, resamples=60).shares
    assert sum(one.shares.values()) == pytest.approx(1)
    assert one.shares != bootstrap_laws(data, resamples=60, seed=1).shares


def test_seeds_that_differ_much_do_not_all_prefer_one_law():
    shares = bootstrap_laws(as_trained(lambda depth, seed: (0, 5, 12)[seed]), resamples=100).shares
    assert max(shares.values()) < 0.95


def test_a_tie_is_shared():
    shares = bootstrap_laws(as_trained(lambda depth, seed: 0), resamples=10).shares
    assert shares == pytest.approx({"linear": 1 / 3, "logarithmic": 1 / 3, "none": 1 / 3, "constant": 0})


def test_no_resamples_are_refused():
    with pytest.raises(ValueError, match="must be positive, got 0"):
        bootstrap_laws(as_trained(lambda depth, seed: 5), resamples=0)


def left(reach, law, **changes):
    data = frontier_intervals(depth_frontier(sweep(reach, **changes)).frame(), "as trained")
    return leftover_trend(data, fit_laws(data).fits[law])


def test_no_trend_is_left_by_the_law_that_is_so():
    found = left(lambda depth, seed: 1 + 2 * depth, "linear")
    assert found.p > 0.5
    assert found.low < 1 < found.high


def test_the_flat_law_leaves_the_whole_growth():
    """K* = 4, 5, 6, 7 and one more or less: from L = 1 to L = 4 by a factor of 7 / 4 = 1.75."""
    found = left(lambda depth, seed: 3 + depth + seed - 1, "none")
    assert found.p < 0.01
    assert found.low < 1.75 < found.high
    assert found.factor == pytest.approx(1.75, abs=0.3)


def test_a_fall_is_a_trend_too():
    assert left(lambda depth, seed: 11 - 2 * depth, "none").factor < 0.6


def test_where_everything_is_solved_there_is_nothing_to_ask():
    found = left(lambda depth, seed: 12, "constant")
    assert (found.factor, found.p) == (1, 1)


def test_two_runs_are_too_few():
    assert left(lambda depth, seed: 3 * depth, "none", depths=(1, 2), seeds=1).p == 1
