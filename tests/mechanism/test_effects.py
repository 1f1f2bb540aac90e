import numpy as np
import pytest

from cotinterp.mechanism.metrics import NoGapError, has_gap, kept_pairs, normalized_effects


def test_nothing_is_zero_everything_is_one_bit_for_bit():
    gap = np.random.default_rng(0).normal(5.0, 3.0, size=37)
    found = normalized_effects(np.stack([0 * gap, gap, -gap]), gap)
    assert found.effect.tolist() == [0.0, 1.0, -1.0]
    assert not np.signbit(normalized_effects(-0.0 * gap[None], gap).effect).any()


def test_ratio_of_means_worked_by_hand():
    """(1 + 0) / (2 + 8); the mean of ratios would be 0.25."""
    found = normalized_effects(np.array([[1.0, 0.0]]), np.array([2.0, 8.0]))
    assert found.effect.tolist() == [0.1]
    assert (found.n, found.dropped) == (2, 0)


def test_a_pair_without_a_gap_is_dropped_and_counted():
    change, gap = np.array([[1.0, 700.0, 3.0]]), np.array([4.0, 1e-4, 4.0])
    found = normalized_effects(change, gap)
    assert (found.effect.tolist(), found.n, found.dropped) == ([0.5], 2, 1)
    assert normalized_effects(change, gap, eps=1e-5).n == 2, "below a thousandth of the median gap"
    assert has_gap(np.array([2e-3, 1e-4])).tolist() == [True, False]
    assert has_gap(np.array([500.0, 500.0, 0.4])).tolist() == [True, True, False]


def test_pairs_with_a_missing_measurement_are_dropped():
    found = normalized_effects(np.array([[1.0, np.nan, 3.0]]), np.array([4.0, 4.0, 4.0]))
    assert (found.effect.tolist(), found.n, found.dropped) == ([0.5], 2, 1)


def test_numerator_and_denominator_are_redrawn_together():
    """Where every pair closes the same share of its gap, there is nothing uncertain about that share."""
    gap = np.random.default_rng(1).uniform(1.0, 20.0, size=30)
    found = normalized_effects(0.4 * gap[None], gap)
    np.testing.assert_allclose([found.effect[0], found.ci_low[0], found.ci_high[0]], 0.4, atol=1e-12)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(2), 0
    for seed in range(200):
        gap = rng.uniform(2.0, 6.0, size=40)
        found = normalized_effects((0.3 * gap + rng.normal(size=40))[None], gap, seed=seed, n_resamples=400)
        hits += found.ci_low[0] <= 0.3 <= found.ci_high[0]
    assert 0.88 <= hits / 200 <= 0.99


def test_equal_seeds_give_equal_intervals():
    rng = np.random.default_rng(3)
    change, gap = rng.normal(size=(3, 20)), rng.uniform(1.0, 2.0, size=20)
    first, again, other = (normalized_effects(change, gap, seed=seed) for seed in (0, 0, 1))
    assert first.ci_low.tolist() == again.ci_low.tolist()
    assert first.ci_low.tolist() != other.ci_low.tolist()


def test_no_interval_where_there_is_nothing_to_go_by():
    alone = normalized_effects(np.array([[1.0]]), np.array([2.0]))
    assert alone.effect.tolist() == [0.5]
    assert np.isnan([alone.ci_low[0], alone.ci_high[0]]).all()
    undecided = normalized_effects(np.array([[1.0, 1.0, 1.0]]), np.array([5.0, -4.0, 5.0]))
    assert np.isnan(undecided.ci_low[0]), "a mean gap of either sign has no bounded ratio"


def test_nothing_to_normalize_by_says_so():
    with pytest.raises(NoGapError, match="none of 2 pairs has a gap of 0.001.*does not tell them apart"):
        kept_pairs(np.ones((1, 2)), np.array([1e-5, -1e-4]))
    with pytest.raises(NoGapError, match="gaps of 2 pairs cancel.*mean size 3"):
        kept_pairs(np.ones((1, 2)), np.array([3.0, -3.0]))
    found = normalized_effects(np.ones((1, 2)), np.array([3.0, -3.0]))
    assert np.isnan([found.effect[0], found.ci_low[0], found.ci_high[0]]).all()
    assert (found.n, found.dropped) == (0, 2)
