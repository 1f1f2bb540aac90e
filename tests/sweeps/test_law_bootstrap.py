"""Redrawn seeds: shares that sum to one, do not depend on order, and share ties."""

from dataclasses import replace

import numpy as np
import pytest

from cotinterp.depth.frontier import frontier
from cotinterp.depth.law_fit import bootstrap_laws, fit_laws
from cotinterp.depth.laws import observed
from tests.sweeps.frontiers import sweep


def seen(reach, **changes):
    return observed(frontier(sweep(reach, **changes)).frame(), "as trained")


def test_one_run_at_each_depth_leaves_nothing_to_redraw():
    data = seen(lambda depth, seed: 1 + 2 * depth, seeds=1, depths=(1, 2, 3, 4, 5))
    assert bootstrap_laws(data, resamples=20).shares[fit_laws(data).preferred.law] == 1


def test_equal_seeds_give_equal_shares_and_order_does_not_matter():
    data = seen(lambda depth, seed: 4 + 2 * seed + (depth > 2))
    order = np.random.default_rng(1).permutation(len(data.depth))
    moved = replace(data, depth=data.depth[order], low=data.low[order], high=data.high[order], share=data.share[order])
    one, other = bootstrap_laws(data, resamples=60), bootstrap_laws(moved, resamples=60)
    assert one.shares == other.shares == bootstrap_laws(data, resamples=60).shares
    assert sum(one.shares.values()) == pytest.approx(1)
    assert one.shares != bootstrap_laws(data, resamples=60, seed=1).shares


def test_seeds_that_differ_much_do_not_all_prefer_one_law():
    shares = bootstrap_laws(seen(lambda depth, seed: (0, 5, 12)[seed]), resamples=100).shares
    assert max(shares.values()) < 0.95


def test_a_tie_is_shared():
    shares = bootstrap_laws(seen(lambda depth, seed: 0), resamples=10).shares
    assert shares == pytest.approx({"linear": 1 / 3, "logarithmic": 1 / 3, "none": 1 / 3, "constant": 0})


def test_no_resamples_are_refused():
    with pytest.raises(ValueError, match="must be positive, got 0"):
        bootstrap_laws(seen(lambda depth, seed: 5), resamples=0)
