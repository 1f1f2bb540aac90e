"""AUROC and calibration by hand, against scikit-learn, and against labels that say nothing."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from cotinterp.behavior.search.verification import (
    ScoredSteps,
    Verification,
    auroc,
    brier,
    calibration,
    calibration_error,
)

SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.35])
RIGHT = np.array([False, False, True, True, True])


def some(n=400, *, skill=1.0, seed=0):
    rng = np.random.default_rng(seed)
    right = rng.random(n) < 0.6
    return np.round(rng.normal(skill * right), 1), right


def test_auroc_by_hand():
    # Of six pairs (right, wrong): 0.35 wins one of two, twice; 0.8 wins both. A tie with 0.4 counts half.
    assert auroc(SCORES, RIGHT) == pytest.approx(4 / 6)
    assert auroc(np.array([0.1, 0.4, 0.4, 0.8, 0.35]), RIGHT) == pytest.approx(4.5 / 6)
    assert auroc(-SCORES, RIGHT) == pytest.approx(2 / 6)
    # Within strata 0, 0, 0, 1, 1 there are pairs in the first alone: 0.35 against 0.1 and 0.4.
    assert auroc(SCORES, RIGHT, strata=np.array([0, 0, 0, 1, 1])) == pytest.approx(1 / 2)
    assert np.isnan(auroc(SCORES, np.ones(5, bool)))
    with pytest.raises(ValueError, match="1 of them NaN"):
        auroc(np.array([np.nan, 0.5]), RIGHT[1:3])


def test_auroc_and_brier_are_those_of_scikit_learn():
    scores, right = some()
    assert auroc(scores, right) == pytest.approx(roc_auc_score(right, scores), abs=1e-12)
    p = 1 / (1 + np.exp(-scores))
    assert brier(p, right) == pytest.approx(brier_score_loss(right, p), abs=1e-12)


def test_calibration_by_hand():
    scores, right = np.array([0.15, 0.18, 0.95, 0.95]), np.array([False, True, True, True])
    table = calibration(scores, right)
    np.testing.assert_allclose(table.to_numpy(), [[0.1, 0.2, 2, 0.165, 0.5], [0.9, 1.0, 2, 0.95, 1.0]])
    assert calibration_error(scores, right) == pytest.approx((0.335 + 0.05) / 2)
    assert np.isnan(calibration_error(scores - 1, right))
    assert np.isnan(brier(scores - 1, right))
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration(scores - 1, right)


def test_labels_that_say_nothing_are_at_a_half_and_those_that_do_are_above():
    scores, right = some()
    dealt = np.random.default_rng(1).permutation(right)
    problem, step = np.arange(400) // 4, np.arange(400) % 4
    one, control = ScoredSteps("probe", scores, right), ScoredSteps("probe", scores, dealt, "shuffled")
    verification = Verification((one, control, ScoredSteps("none", -scores, right)), problem, step)
    frame = verification.frame().set_index(["scorer", "labels"])
    assert frame.loc[("probe", "shuffled"), "ci_low"] < 0.5 < frame.loc[("probe", "shuffled"), "ci_high"]
    assert frame.loc[("probe", "true"), "ci_low"] > 0.6
    own, other = (frame.loc[("probe", name), "auroc"] for name in ("true", "shuffled"))
    assert frame.loc[("probe", "true"), "selectivity"] == pytest.approx(own - other)
    assert frame.loc[("none", "true"), "ci_high"] < 0.5
    low, high = verification.difference(one, ScoredSteps("none", -scores, right))
    assert low < 2 * own - 1 < high
    assert len(verification.figure().data)


def test_whole_problems_are_redrawn():
    # Every step ten times over is no more to go by: the interval stays, and would shrink if rows were redrawn.
    scores, right = some(60, seed=3)
    often = np.repeat(np.arange(60), 10)
    alone = Verification((ScoredSteps("one", scores, right),), np.arange(60), np.zeros(60, int)).frame()
    tenfold = ScoredSteps("one", scores[often], right[often])
    repeated = Verification((tenfold,), often, np.zeros(600, int)).frame()
    for name in ("auroc", "ci_low", "ci_high"):
        assert repeated[name][0] == pytest.approx(alone[name][0], abs=1e-9)
    apart = Verification((tenfold,), np.arange(600), np.zeros(600, int)).frame()
    assert apart["ci_high"][0] - apart["ci_low"][0] < 0.6 * (alone["ci_high"][0] - alone["ci_low"][0])
