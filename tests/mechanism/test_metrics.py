import math

import numpy as np
import pytest
import torch

from cotinterp.mechanism.metrics import (
    NoGapError,
    accuracy,
    correct_logit,
    has_gap,
    kept_pairs,
    kl,
    log_prob,
    logit_diff,
    normalized_effects,
    probability,
    wrong_logit,
)


@pytest.fixture
def logits():
    """Two examples, two positions, four tokens; read at positions 1 and 0."""
    return torch.tensor(
        [
            [[9.0, 9.0, 9.0, 9.0], [0.0, math.log(2), math.log(4), 0.0]],
            [[1.0, 5.0, 2.0, 5.0], [9.0, 9.0, 9.0, 9.0]],
        ]
    )


AT, ANSWER, FOIL = torch.tensor([1, 0]), torch.tensor([2, 0]), torch.tensor([1, 3])


def test_worked_by_hand(logits):
    torch.testing.assert_close(logit_diff(logits, AT, ANSWER, FOIL), torch.tensor([math.log(2), -4.0]))
    torch.testing.assert_close(correct_logit(logits, AT, ANSWER), torch.tensor([math.log(4), 1.0]))
    torch.testing.assert_close(wrong_logit(logits, AT, FOIL), torch.tensor([math.log(2), 5.0]))
    first = torch.tensor([4 / 8, math.exp(1) / (math.exp(1) + 2 * math.exp(5) + math.exp(2))])
    torch.testing.assert_close(probability(logits, AT, ANSWER), first)
    torch.testing.assert_close(log_prob(logits, AT, ANSWER), first.log())
    assert accuracy(logits, AT, ANSWER).tolist() == [1.0, 0.0]


def test_divergence_worked_by_hand():
    fair, skewed = torch.zeros(1, 1, 2), torch.tensor([[[math.log(3), 0.0]]])
    at = torch.tensor([0])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    torch.testing.assert_close(kl(skewed, fair, at), torch.tensor([expected]))
    assert not torch.isclose(kl(fair, skewed, at), torch.tensor([expected])), "the direction matters"
    assert kl(skewed, skewed, at).item() == 0.0


def test_probability_does_not_underflow_in_the_log(logits):
    assert log_prob(logits * 100, AT, FOIL)[0].item() == pytest.approx(-100 * math.log(2), rel=1e-5)


def test_equal_answer_and_foil_are_refused_with_their_count(logits):
    with pytest.raises(ValueError, match="same token in 1 of 2 pairs"):
        logit_diff(logits, AT, ANSWER, torch.tensor([1, 0]))


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
