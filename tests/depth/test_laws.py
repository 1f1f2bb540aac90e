"""Laws and intervals worked by hand."""

from math import log2, sqrt

import numpy as np
import pandas as pd
import pytest

from cotinterp.depth.frontier import depth_frontier
from cotinterp.depth.laws import consistent_laws, frontier_intervals, law_parameter, log2_longest
from tests.depth.made_up_frontiers import reaching, run_rows, sweep

DEPTHS = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("law", "theta", "enough", "expected"),
    [
        ("linear", 1.0, np.inf, [2, 3, 4]),
        ("linear", log2(3), np.inf, [3, 5, 7]),
        ("logarithmic", 1.0, np.inf, [2, 4, 8]),
        ("none", log2(5), np.inf, [5, 5, 5]),
        ("constant", 2.0, 3.0, [4, 4, np.inf]),
        ("constant", 2.0, 1.0, [np.inf] * 3),
    ],
)
def test_each_law_goes_its_own_way_from_the_least_depth(law, theta, enough, expected):
    found = 2 ** log2_longest(law, np.array([theta]), DEPTHS, 1.0, enough)
    np.testing.assert_allclose(found, expected)


def test_the_least_depth_may_be_another_than_one():
    np.testing.assert_allclose(2 ** log2_longest("linear", np.array([log2(5)]), np.array([2.0, 4.0]), 2.0), [5, 9])
    assert law_parameter("linear", log2(5), 2.0) == pytest.approx(2)
    assert law_parameter("logarithmic", 3.0, 2.0) == 1.5
    assert law_parameter("none", 3.0, 2.0) == 8


def seen(rows, treatment):
    return frontier_intervals(depth_frontier(pd.DataFrame(rows)).frame(), treatment)


def test_a_frontier_lies_between_the_last_solved_and_the_next_length():
    rows = [*reaching(4, n_layers=1), *reaching(12, n_layers=2), *reaching(0, n_layers=3)]
    data = seen(rows, "as trained")
    np.testing.assert_allclose(data.low, [log2(3.5), log2(11.5), -np.inf])
    np.testing.assert_allclose(data.high, [log2(4.5), np.inf, log2(2.5)])
    np.testing.assert_allclose(data.share, [1 / 11] * 3)
    assert data.depths == (1, 2, 3)
    assert data.top == log2(11.5)
    assert data.resolution == pytest.approx((log2(12.5) - log2(2.5)) / 10 / sqrt(12))


def test_lengths_that_were_not_measured_widen_the_interval():
    data = seen(run_rows({4: 0.95, 9: 0.3}, {9: 1.0}), "as trained")
    np.testing.assert_allclose([data.low[0], data.high[0]], [log2(3.5), log2(8.5)])


@pytest.mark.parametrize("convergence", ["stalled", "improving"])
def test_an_unconverged_run_is_a_lower_bound_where_it_is_censored(convergence):
    rows = reaching(4, convergence=convergence)
    trained, censored = seen(rows, "as trained"), seen(rows, "censored")
    assert trained.high[0] == log2(4.5)
    assert (censored.low[0], censored.high[0]) == (log2(3.5), np.inf)
    assert censored.share[0] == pytest.approx(9 / 11)  # 4, 5, ..., 12 of 0, 3, 4, ..., 12


def test_an_unconverged_run_that_solves_nothing_says_nothing():
    data = seen(reaching(0, convergence="improving"), "censored")
    assert not data.informative.any()
    assert data.share[0] == 1


def test_both_treatments_are_one_where_all_runs_converged():
    table = depth_frontier(sweep(lambda depth, seed: depth + 3)).frame()
    one, other = frontier_intervals(table, "as trained"), frontier_intervals(table, "censored")
    np.testing.assert_array_equal(one.high, other.high)


def test_runs_that_were_not_measured_are_left_out_and_none_at_all_is_refused():
    rows = [*reaching(4), *run_rows({}, run_seed=1, status="failed")]
    assert len(seen(rows, "censored").depth) == 1
    with pytest.raises(ValueError, match="no run was measured"):
        seen(rows[-1:], "censored")


def best_of(reached, k_top=12, tried=True):
    """What each depth expresses, by depth."""
    rows = [
        {"n_layers": depth, "best": best, "next_k": best + 1 if best < k_top else -1, "k_top": k_top, "tried": tried}
        for depth, best in reached.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("reached", "laws"),
    [
        ({1: 12, 2: 12, 4: 12}, ("constant",)),
        ({1: 5, 2: 5, 4: 5}, ("none",)),
        ({1: 2, 2: 3, 4: 5}, ("linear",)),
        ({1: 2, 2: 4, 3: 8}, ("logarithmic",)),
        ({1: 5, 2: 12, 4: 12}, ("logarithmic", "constant")),
        ({1: 5, 2: 9, 4: 12}, ("linear",)),
        ({1: 5, 2: 6, 4: 7}, ()),
    ],
)
def test_existence_proofs_leave_the_laws_that_they_can_be_reconciled_with(reached, laws):
    assert consistent_laws(best_of(reached)) == laws


def test_a_depth_that_was_not_tried_enough_has_no_upper_end():
    # The greatest depth may solve every length, too: nothing has shown that it cannot.
    assert set(consistent_laws(best_of({1: 2, 2: 3, 4: 5}, tried=False))) == {
        *("linear", "logarithmic", "constant", "none"),
    }


def test_a_constant_law_is_what_is_left_where_all_others_are_too_slow():
    # One layer stops at 4, two go on to 22 and were not tried enough: a line has 7 there, a tree 16 to 20.
    best = best_of({1: 4, 2: 22})
    best.loc[best["n_layers"] == 2, "tried"] = False
    assert consistent_laws(best) == ("constant",)
    best.loc[best["n_layers"] == 2, "best"] = 18
    assert consistent_laws(best) == ("logarithmic", "constant")
