"""A scan of nothing finds something as often as it says; a scan of something finds it."""

import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from cotinterp.results.multiplicity import (
    exchange_test,
    holm,
    max_statistic,
    sign_flip_p,
    simultaneous_half_width,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_holm_worked_by_hand():
    """Sorted .01 .02 .03 .5 times 4 3 2 1: .04 .06 .06 .5, each at least the one before."""
    assert holm(np.array([0.02, 0.5, 0.01, 0.03])) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm(np.array([0.4, 0.9])) == pytest.approx([0.8, 0.9])
    assert holm(np.array([0.7, 0.6])).tolist() == [1.0, 1.0], "a p-value is at most 1"
    assert holm(np.array([])).tolist() == []


def test_holm_leaves_missing_tests_out_of_the_count():
    adjusted = holm(np.array([np.nan, 0.01, np.nan, 0.04]))
    assert np.isnan(adjusted[[0, 2]]).all()
    assert adjusted[[1, 3]] == pytest.approx([0.02, 0.04])


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.inf])
def test_holm_refuses_what_is_no_p_value(wrong):
    with pytest.raises(ValueError, match=r"lie in 0\.\.1"):
        holm(np.array([0.5, wrong]))


def test_sign_flips_are_counted_by_hand():
    """Three rows, one cell: |t| of the flipped means against the observed, for the 8 flips."""
    values = np.array([[1.0, 2.0, 4.0]])
    flips = np.array(list(product([1, -1], repeat=3))) * values
    t = np.abs(flips.mean(1)) / flips.std(1, ddof=1)
    assert sign_flip_p(values) == pytest.approx([(t >= t[0] - 1e-9).mean()])
    assert sign_flip_p(values).tolist() == [0.25]


def test_the_family_of_cells_is_the_yardstick():
    """Two cells, three rows: each flip is judged by its larger |t|."""
    values = np.array([[1.0, 2.0, 4.0], [3.0, -1.0, 0.5]])
    flips = np.array(list(product([1, -1], repeat=3)))[:, None] * values
    t = np.abs(flips.mean(2)) / flips.std(2, ddof=1)
    assert sign_flip_p(values) == pytest.approx((t.max(1)[:, None] >= t[0] - 1e-9).mean(0))


def test_no_p_value_is_below_what_the_rows_allow():
    for n in (5, 6):
        assert sign_flip_p(np.full((3, n), 2.0)).tolist() == [1 / 2 ** (n - 1)] * 3


def test_drawn_flips_agree_with_counted_ones():
    values = normal(4, 12) + 0.5
    counted = sign_flip_p(values)
    doubled = np.concatenate([values, np.zeros((4, 1))], axis=1)
    assert sign_flip_p(doubled, n_resamples=20_000) == pytest.approx(
        sign_flip_p(doubled, n_resamples=20_000, seed=1), abs=0.02
    )
    assert np.abs(sign_flip_p(doubled, n_resamples=20_000) - counted).max() < 0.05


@pytest.mark.parametrize(("cells", "n", "repeats"), [(20, 8, 600), (30, 25, 300)])
def test_pure_noise_is_flagged_as_often_as_the_level_says(cells, n, repeats):
    """No cell has a mean; neighbors move together; the share of scans with any flag is 5%, within 3 standard errors."""
    rng = np.random.default_rng(5)
    flagged = 0
    for seed in range(repeats):
        noise = rng.normal(size=(cells, n)) + rng.normal(size=(1, n))
        flagged += bool((sign_flip_p(noise, n_resamples=199, seed=seed) <= 0.05).any())
    assert flagged / repeats <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
    assert flagged > 0, "a test that never fires controls nothing"


def test_uncorrected_noise_would_have_been_flagged():
    """The same scans cell by cell: most of them find something where nothing is."""
    rng, flagged = np.random.default_rng(6), 0
    for _ in range(40):
        noise = rng.normal(size=(20, 8))
        flagged += any(sign_flip_p(row[None])[0] <= 0.05 for row in noise)
    assert flagged / 40 > 0.4


def test_what_is_there_is_found_and_the_rest_is_not():
    values = normal(40, 30, seed=1)
    values[7] += 1.5
    found = max_statistic(values, n_resamples=500)
    assert np.flatnonzero(found.p <= 0.05).tolist() == [7]
    assert found.low[7] > 0
    assert ((found.low <= 0) & (found.high >= 0)).sum() == 39


@pytest.mark.parametrize("n", [8, 25])
def test_all_intervals_hold_together(n):
    rng, covered, each = np.random.default_rng(8), 0, 0
    for seed in range(150):
        values = rng.normal(size=(15, n)) + np.arange(15)[:, None]
        half = simultaneous_half_width(values, n_resamples=300, seed=seed)
        off = np.abs(values.mean(1) - np.arange(15))
        covered += bool((off <= half).all())
        each += bool((off <= 2 * values.std(1, ddof=1) / np.sqrt(n)).all())
    assert covered / 150 >= 0.9
    assert each / 150 < 0.8, "intervals made for one cell do not hold for all"


def test_one_cell_that_is_nearly_always_zero_does_not_widen_the_others():
    values = normal(10, 20)
    alone = simultaneous_half_width(values)
    values[0] = 0.0
    values[0, 3] = 1.0
    assert (simultaneous_half_width(values)[1:] < 1.5 * alone[1:]).all()


def test_cells_without_spread():
    values = np.stack([np.zeros(9), np.full(9, 2.0), normal(9)])
    found = max_statistic(values)
    assert (found.mean[0], found.low[0], found.high[0], found.p[0]) == (0.0, 0.0, 0.0, 1.0)
    assert (found.low[1], found.high[1]) == (2.0, 2.0)
    assert found.p[1] == 1 / 2**8
    still = max_statistic(np.zeros((2, 9)))
    assert (still.p.tolist(), still.high.tolist()) == ([1.0, 1.0], [0.0, 0.0])


def test_too_few_rows_have_no_answer():
    for n in (0, 1):
        found = max_statistic(np.ones((2, n)))
        assert np.isnan([found.low, found.high, found.p]).all()
    assert max_statistic(np.ones((2, 1))).mean.tolist() == [1.0, 1.0]
    assert len(max_statistic(np.ones((0, 8))).p) == 0


def test_equal_seeds_equal_answers():
    values = normal(5, 20)
    first, again, other = (max_statistic(values, n_resamples=100, seed=seed) for seed in (0, 0, 1))
    assert first.p.tolist() == again.p.tolist()
    assert first.low.tolist() == again.low.tolist()
    assert first.low.tolist() != other.low.tolist()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: max_statistic(np.array([[1.0, np.nan]])), "1 of 2 values are not finite"),
        (lambda: max_statistic(np.ones((1, 20)), level=95.0), "strictly between 0 and 1"),
        (lambda: max_statistic(np.ones((1, 20)), n_resamples=0), "n_resamples must be positive"),
        (lambda: exchange_test(np.ones(2), np.ones((0, 2))), "19 are the fewest"),
        (lambda: exchange_test(np.array([np.nan, 1.0]), np.zeros((19, 2))), "not finite"),
    ],
)
def test_what_cannot_be_tested(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()


def test_exchange_worked_by_hand():
    """Maxima of the relabelings: 3, 5, 2, 1. One of four reaches 4, all reach 0, none 6."""
    null = np.array([[3.0, 0, 1], [1, 5, 0], [2, 2, 2], [0, 0, 1]])
    assert exchange_test(np.array([4.0, 0.0, 6.0]), null).tolist() == [2 / 5, 1.0, 1 / 5]


def test_exchange_keeps_its_level():
    rng, repeats, flagged = np.random.default_rng(9), 600, 0
    for _ in range(repeats):
        scans = rng.gamma(1.0, size=(20, 10))
        flagged += bool((exchange_test(scans[0], scans[1:]) <= 0.05).any())
    assert abs(flagged / repeats - 0.05) <= 3 * np.sqrt(0.05 * 0.95 / repeats)


def test_results_stay_a_light_import():
    code = "import sys, cotinterp.results; print({'pandas', 'plotly', 'torch', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
