"""The table of the readiness curve, worked by hand, and its figure."""

import numpy as np
import pytest

from cotinterp.behavior.readiness import FLOOR, ReadinessResult, Ready
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve

ONE, OTHER = solve(get_task("digit-sum"), np.array([[3, 4, 5], [1, 2, 3]]))


@pytest.fixture
def result():
    half, quarter = np.log([0.5, 0.25]).tolist()
    points = (
        Ready(ONE, "true", "free", 0, half, None),
        Ready(OTHER, "true", "free", 0, quarter, None),
        Ready(ONE, "edited", "free", 1, -np.inf, 0.0),
        Ready(OTHER, "edited", "free", 1, quarter, half),
        Ready(ONE, "edited", "forced", 1, quarter, half),
    )
    return ReadinessResult(points, {"task": "digit-sum", "regime": "cot", "run_seed": 3})


def test_the_table(result):
    table = result.frame().set_index(["trace", "how", "step"])
    assert list(result.frame().columns[:8]) == ["task", "regime", "run_seed", "k", "trace", "how", "step", "n"]
    true = table.loc[("true", "free", 0)]
    assert true["probability"] == pytest.approx(0.375)
    assert true["log_prob"] == pytest.approx(-1.5 * np.log(2))
    assert np.isnan(true["followed"])
    assert true["probability_low"] <= 0.375 <= true["probability_high"]
    edited = table.loc[("edited", "free", 1)]
    assert edited["probability"] == pytest.approx(0.125)
    assert edited["log_prob"] == pytest.approx((FLOOR - 2 * np.log(2)) / 2)
    assert edited["followed"] == pytest.approx(0.75)
    alone = table.loc[("edited", "forced", 1)]
    assert alone["n"] == 1
    assert np.isnan(alone["probability_low"])
    assert set(table["k"]) == {3}


def test_the_figure_has_a_line_for_each_trace_and_way(result):
    figure = result.figure()
    assert {trace.name for trace in figure.data} >= {"true, free", "edited, free", "edited, forced"}
    assert "digit-sum, cot, run seed 3" in figure.layout.title.text
