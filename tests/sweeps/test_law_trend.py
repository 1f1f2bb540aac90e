"""A trend beyond the law is found where there is one, and its size is right."""

import pytest

from cotinterp.depth.frontier import frontier
from cotinterp.depth.law_fit import fit_laws, leftover_trend
from cotinterp.depth.laws import observed
from tests.sweeps.frontiers import sweep


def left(reach, law, **changes):
    data = observed(frontier(sweep(reach, **changes)).frame(), "as trained")
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
