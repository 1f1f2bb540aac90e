"""Logistics in log updates recover what was planted, and the window of unread traces its two ends."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cotinterp.studies.events import AGREES, CANNOT_TELL, DIFFERS
from cotinterp.studies.learning_curves import fit_logistic, learning_curves, unread_window

UPDATES = np.unique(np.geomspace(20, 5000, 30).round())


def accuracy_of(midpoint, slope, ceiling=1.0):
    return ceiling * expit(slope * (np.log(UPDATES) - np.log(midpoint)))


def rows(values, *, measure="accuracy", condition="heldout", regime="cot", seed=0, n=200):
    labels = {"task": "s3", "regime": regime, "run_seed": seed, "measure": measure, "condition": condition}
    zero = pd.DataFrame({"update": [0.0], "value": [0.0], "n": n})
    return pd.concat([zero, pd.DataFrame({"update": UPDATES, "value": values, "n": n})]).assign(**labels)


@pytest.mark.parametrize(("midpoint", "slope", "ceiling"), [(300, 4, 1.0), (1500, 2, 0.6), (90, 12, 0.9)])
def test_planted_parameters_come_back_exactly_without_noise(midpoint, slope, ceiling):
    n = np.full(len(UPDATES), 1000.0)
    fit = fit_logistic(UPDATES, n * accuracy_of(midpoint, slope, ceiling), n)
    assert fit.midpoint == pytest.approx(midpoint, rel=0.01)
    assert fit.slope == pytest.approx(slope, rel=0.02)
    assert fit.ceiling == pytest.approx(ceiling, abs=0.005)
    assert np.abs(fit.at(UPDATES) - accuracy_of(midpoint, slope, ceiling)).max() < 0.005


def test_standard_errors_are_those_of_redrawn_problems():
    rng, n = np.random.default_rng(0), np.full(len(UPDATES), 100)
    p = accuracy_of(400, 3, 0.8)
    fits = [fit_logistic(UPDATES, rng.binomial(100, p), n) for _ in range(30)]
    for value, error in (("midpoint", "log_midpoint_se"), ("slope", "log_slope_se")):
        spread = np.std([np.log(getattr(fit, value)) for fit in fits])
        said = np.median([getattr(fit, error) for fit in fits])
        assert said == pytest.approx(spread, rel=0.4)
        truth = {"midpoint": 400, "slope": 3}[value]
        inside = [abs(np.log(getattr(fit, value) / truth)) < 1.96 * getattr(fit, error) for fit in fits]
        assert np.mean(inside) > 0.85


def test_two_parameters_hold_the_ceiling():
    n = np.full(len(UPDATES), 1000.0)
    fit = fit_logistic(UPDATES, n * accuracy_of(300, 4), n, ceiling=1.0)
    assert (fit.ceiling, fit.ceiling_se) == (1.0, 0.0)
    assert fit.midpoint == pytest.approx(300, rel=0.01)


def test_a_level_of_guessing_is_given_and_moves_no_midpoint():
    n = np.full(len(UPDATES), 1000.0)
    right = 0.25 + 0.75 * accuracy_of(600, 6)
    right[:4] = 0  # nothing is answered before the form is learned
    fit = fit_logistic(UPDATES, n * right, n, floor=0.25)
    assert fit.midpoint == pytest.approx(600, rel=0.01)
    assert fit.slope == pytest.approx(6, rel=0.02)
    assert fit.at([600])[0] == pytest.approx(0.625, abs=0.01)
    assert fit_logistic(UPDATES, n * right, n).midpoint < 500


def test_what_cannot_be_fitted_is_said():
    n = np.full(3, 10.0)
    with pytest.raises(ValueError, match="nothing was right"):
        fit_logistic([10, 20, 30], [0, 0, 0], n)
    with pytest.raises(ValueError, match="2 moments after update 0 for 3 parameters"):
        fit_logistic([0, 20, 30], [0, 0, 1], n)
    with pytest.raises(ValueError, match="none to all are right"):
        fit_logistic([10, 20, 30], [0, 0, 11], n)


def test_curves_of_runs_have_their_intervals_and_those_without_a_right_answer_are_left_out():
    rng = np.random.default_rng(1)
    parts = [
        rows(rng.binomial(200, accuracy_of(300 * np.exp(rng.normal(0, 0.2)), 5)) / 200, seed=seed) for seed in range(6)
    ]
    parts.append(rows(np.zeros(len(UPDATES)), regime="direct"))
    result = learning_curves(pd.concat(parts))
    assert result.left_out == (("s3", "direct", 0),)
    assert len(result.frame()) == 6
    summary = result.over_runs().set_index("parameter")
    assert summary.loc["midpoint", "ci_low"] < 300 < summary.loc["midpoint", "ci_high"]
    assert summary.loc["slope", "value"] == pytest.approx(5, rel=0.1)
    assert summary.loc["off", "value"] < 0.15
    guessing = rows(np.maximum(accuracy_of(1000, 12), 0.3 * (UPDATES > 50)))
    assert learning_curves(guessing).frame()["off"].item() > 0.2
    assert {trace.name for trace in result.figure().data} >= {"cot, measured", "cot, logistic"}


def traces(written_at, read_at, *, seeds=6):
    rng, parts = np.random.default_rng(2), []
    for seed in range(seeds):
        for measure, condition, at in (("trace_right", "heldout", written_at), ("follows", "edited", read_at)):
            parts.append(
                rows(accuracy_of(at * np.exp(rng.normal(0, 0.05)), 8), measure=measure, condition=condition, seed=seed)
            )
    return pd.concat(parts)


def test_a_planted_window_of_unread_traces_is_found_with_its_ends():
    found = unread_window(traces(200, 800), written=0.5)
    assert found.judged() == AGREES
    (row,) = found.summary().to_dict("records")
    assert row["start"] == pytest.approx(200, rel=0.08)
    assert row["end"] == pytest.approx(800, rel=0.08)
    assert row["log_ratio_low"] < np.log(4) < row["log_ratio_high"] or row["log_ratio"] == pytest.approx(
        np.log(4), rel=0.05
    )
    assert unread_window(traces(800, 200)).judged() == DIFFERS
    assert unread_window(traces(200, 200), written=0.5).judged() == CANNOT_TELL
    # A run that is stopped before anything is read has no end, and nothing is told of it.
    assert unread_window(traces(200, 100_000)).judged() == CANNOT_TELL
    with pytest.raises(ValueError, match="writes its totals"):
        unread_window(rows(np.zeros(len(UPDATES)), regime="direct"))
