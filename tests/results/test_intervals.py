import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap

from cotinterp.results import Interval, bootstrap, bootstrap_means, intervals, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 50), (1, 2), (7, 9), (48, 50), (50, 50), (731, 1000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_wilson_agrees_with_scipy(successes: int, n: int, level: float) -> None:
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand() -> None:
    """9 of 10, with z = 1.96: (0.9 + 0.19208 +- 1.96 sqrt(0.009 + 0.009604)) / 1.38416."""
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=5e-5)


def test_wilson_touches_its_ends_exactly_and_keeps_width_there() -> None:
    assert wilson(0, 20).low == 0.0
    assert wilson(20, 20).high == 1.0
    assert wilson(0, 20).high == pytest.approx(1 - wilson(20, 20).low)
    assert wilson(0, 20).high > 0.1


def test_wilson_of_nothing_is_unknown() -> None:
    assert np.isnan(wilson(0, 0)).all()


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (1, 0), (0, -2)])
def test_wilson_refuses_counts_that_cannot_be(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {successes} of {n}"):
        wilson(successes, n)


def test_wilson_takes_numpy_counts_but_no_rates() -> None:
    assert wilson(np.int64(3), np.int64(4)) == wilson(3, 4)
    with pytest.raises(TypeError):
        wilson(np.float64(0.75), 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_are_between_zero_and_one(level: float) -> None:
    with pytest.raises(ValueError, match=r"0\.95 is the usual choice"):
        wilson(1, 2, level)
    with pytest.raises(ValueError, match=r"0\.95 is the usual choice"):
        bootstrap(np.arange(3.0), level=level)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_bootstrap_covers_the_mean_as_often_as_it_says(level: float) -> None:
    """600 samples of 60 normal values: the binomial standard error of the coverage is 0.9 and 2 percent."""
    samples = np.random.default_rng(0).normal(loc=3.0, size=(600, 60))
    found = [bootstrap(sample, seed=i, n_resamples=400, level=level) for i, sample in enumerate(samples)]
    assert np.mean([low <= 3.0 <= high for low, high in found]) == pytest.approx(level, abs=0.05)


def test_the_bootstrap_agrees_with_scipy_up_to_the_draw() -> None:
    values = np.random.default_rng(1).exponential(size=80)
    theirs = scipy_bootstrap((values,), np.median, method="percentile", n_resamples=20_000, rng=2).confidence_interval
    ours = bootstrap(values, statistic=np.median, n_resamples=20_000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_the_bootstrap_depends_on_its_seed_alone() -> None:
    values = np.random.default_rng(2).normal(size=30)
    first = bootstrap(values, seed=7)
    np.random.seed(99)
    assert bootstrap(values, seed=7) == first
    assert bootstrap(values, seed=8) != first


def test_blocks_do_not_change_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=33)
    whole, means = bootstrap(values), bootstrap_means(values[None])
    monkeypatch.setattr(intervals, "_RESAMPLED_AT_ONCE", 100)
    assert bootstrap(values) == whole
    np.testing.assert_allclose(bootstrap_means(values[None]), means, rtol=1e-12)


def test_a_constant_has_no_width() -> None:
    assert bootstrap(np.full(10, 4.0)) == Interval(4.0, 4.0)


def test_fewer_than_two_rows_say_nothing_about_spread() -> None:
    for n in (0, 1):
        assert np.isnan(bootstrap(np.ones(n))).all()
        assert np.isnan(bootstrap_means(np.ones((3, n)))).all()


def test_missing_values_are_refused_and_counted() -> None:
    with pytest.raises(ValueError, match="2 of 4 values"):
        bootstrap(np.array([1.0, np.nan, 2.0, np.inf]))
    with pytest.raises(ValueError, match="1 of 6 values"):
        bootstrap_means(np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]]))


def test_without_resamples_there_is_no_interval() -> None:
    with pytest.raises(ValueError, match="n_resamples must be positive, got 0"):
        bootstrap(np.arange(3.0), n_resamples=0)


def test_all_cells_at_once_equal_each_cell_alone() -> None:
    values = np.random.default_rng(4).normal(size=(5, 40)) * np.arange(1, 6)[:, None]
    together = bootstrap_means(values, seed=11, n_resamples=500, level=0.9)
    alone = [bootstrap(row, seed=11, n_resamples=500, level=0.9) for row in values]
    np.testing.assert_allclose(np.stack(together, axis=1), alone, rtol=1e-10)
    assert np.all(np.diff(together.high - together.low) > 0)
