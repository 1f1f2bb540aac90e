import numpy as np
import pytest

from cotinterp.mechanism.metrics import normalized_effects
from cotinterp.mechanism.patching.effects import scan_effects
from cotinterp.results import sign_flip_p, simultaneous_half_width


def test_effects_are_those_of_the_table():
    rng = np.random.default_rng(0)
    change, gap = rng.normal(size=(3, 20)), rng.uniform(1.0, 5.0, size=20)
    gap[4] = 0.0
    scan, effects = scan_effects(change, gap), normalized_effects(change, gap)
    assert scan.effect.tolist() == effects.effect.tolist()
    assert (scan.n, scan.dropped) == (effects.n, effects.dropped) == (19, 1)


def test_a_constant_share_of_every_gap_has_no_width_and_nothing_is_exactly_nothing():
    gap = np.random.default_rng(1).uniform(1.0, 20.0, size=12)
    scan = scan_effects(np.stack([0.4 * gap, gap, 0 * gap]), gap)
    np.testing.assert_allclose([scan.ci_low, scan.ci_high], [[0.4, 1.0, 0.0]] * 2, atol=1e-12)
    assert scan.p[2] == 1.0
    assert (scan.p[:2] == 1 / 2**11).all()


def test_families_are_corrected_each_by_itself():
    rng = np.random.default_rng(2)
    change, gap = rng.normal(size=(30, 15)) + 0.6, np.full(15, 2.0)
    scan = scan_effects(change, gap, [[3], [i for i in range(30) if i != 3]])
    assert scan.p[3] == sign_flip_p(change[3:4])[0] < scan_effects(change, gap).p[3]
    assert scan.ci_high[3] - scan.effect[3] == pytest.approx(
        simultaneous_half_width((change[3:4] - scan.effect[3] * 2.0) / 2.0)[0]
    )


@pytest.mark.parametrize("dependent", [False, True])
def test_noise_is_flagged_at_the_level(dependent):
    """Gaps are there, changes are noise (alone, or the same in all cells but for a little): 5% of scans flag a cell."""
    rng, repeats, flagged, covered = np.random.default_rng(3), 200, 0, 0
    for seed in range(repeats):
        gap = rng.uniform(2.0, 6.0, size=16)
        noise = rng.standard_t(4, size=(25, 16)) * (0.2 if dependent else 1.0) + dependent * rng.normal(size=16)
        scan = scan_effects(noise, gap, seed=seed, n_resamples=199)
        flagged += bool((scan.p <= 0.05).any())
        covered += bool(((scan.ci_low <= 0) & (scan.ci_high >= 0)).all())
    assert flagged / repeats <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
    assert covered / repeats >= 0.9


def test_one_true_cell_among_many():
    rng = np.random.default_rng(4)
    gap = rng.uniform(2.0, 6.0, size=24)
    change = rng.normal(size=(40, 24))
    change[11] += 0.5 * gap
    scan = scan_effects(change, gap, n_resamples=400)
    assert np.flatnonzero(scan.p <= 0.05).tolist() == [11]
    assert scan.ci_low[11] > 0


def test_a_gap_of_either_sign_has_no_interval():
    scan = scan_effects(np.ones((1, 3)), np.array([5.0, -4.0, 5.0]))
    assert np.isnan([scan.ci_low[0], scan.ci_high[0]]).all()
    without = scan_effects(np.ones((1, 3)), np.zeros(3))
    assert np.isnan([without.effect[0], without.p[0], without.ci_low[0]]).all()
    assert (without.n, without.dropped) == (0, 3)
