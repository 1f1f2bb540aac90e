"""The estimate, its error and its table, worked by hand."""

import numpy as np
import pytest

from cotinterp.behavior.marginal import AnswerMarginal, MarginalResult
from cotinterp.behavior.readiness import FLOOR
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve

ONE, OTHER, LONG = (solve(get_task("digit-sum"), np.array([row]))[0] for row in ([3, 4, 5], [1, 2, 3], [1, 1, 1, 1]))
NONE = np.full(2, np.nan)


def marginal(problem, weights, given, *, own=1.0, wrong=(False, False), followed=NONE):
    with np.errstate(divide="ignore"):
        logs = np.log(np.array(weights)), np.log(np.array(given))
    return AnswerMarginal(problem, float(np.log(own)), *logs, np.array(wrong), np.array(followed))


def test_one_problem():
    found = marginal(ONE, [0.5, 1.5], [0.8, 0.4])
    assert np.exp(found.log_prob) == pytest.approx((0.4 + 0.6) / 2)
    assert found.mean_weight == pytest.approx(1)
    assert found.effective_n == pytest.approx(1 / (0.16 + 0.36))
    assert found.standard_error == pytest.approx(np.std([0.4, 0.6], ddof=1) / np.sqrt(2) / 0.5)


def test_traces_that_say_nothing():
    never = marginal(ONE, [1, 1], [0, 0])
    assert never.log_prob == -np.inf
    assert never.effective_n == 0
    assert np.isnan(never.standard_error)
    half = marginal(ONE, [1, 1], [0.3, 0])
    assert np.exp(half.log_prob) == pytest.approx(0.15)
    assert half.effective_n == pytest.approx(1)
    alone = AnswerMarginal(ONE, 0.0, np.zeros(1), np.zeros(1), np.zeros(1, dtype=bool), np.full(1, np.nan))
    assert np.isnan(alone.standard_error)
    assert marginal(ONE, [1, 1], [1e-300, 1e-300]).log_prob == pytest.approx(np.log(1e-300))


@pytest.fixture
def result():
    found = (
        marginal(ONE, [1, 1], [0.5, 0.5], own=0.8, wrong=[True, True], followed=[0.9, np.nan]),
        marginal(OTHER, [1, 2], [0, 0], own=0.2, wrong=[False, True], followed=[np.nan, 0.3]),
        marginal(LONG, [1, 1], [1.0, 0.5], own=1.0),
    )
    return MarginalResult(found, 1.0, {"task": "digit-sum", "regime": "cot", "run_seed": 0})


def test_the_table(result):
    table = result.frame().set_index("k")
    assert list(result.frame().columns[:7]) == ["task", "regime", "run_seed", "k", "n", "traces", "temperature"]
    row = table.loc[3]
    assert row["marginal"] == pytest.approx((np.log(0.5) + FLOOR) / 2)
    assert row["own"] == pytest.approx((np.log(0.8) + np.log(0.2)) / 2)
    assert row["carried"] == pytest.approx(row["own"] - row["marginal"])
    assert row["carried_low"] <= row["carried"] <= row["carried_high"]
    assert np.isnan(row["monte_carlo_error"])
    assert row["wrong_share"] == pytest.approx(4 / 5)
    assert row["wrong_followed"] == pytest.approx((0.9 + 2 * 0.3) / 3)
    assert row["n_wrong"] == 2
    long = table.loc[4]
    assert long["marginal"] == pytest.approx(np.log(0.75))
    assert long["monte_carlo_error"] == pytest.approx(0.25 / 0.75)
    assert np.isnan(long["marginal_low"])
    assert long["wrong_share"] == long["n_wrong"] == 0


def test_the_figure_shows_both_numbers(result):
    figure = result.figure()
    assert {trace.name for trace in figure.data} == {"given the problem", "given the problem and its own trace"}
