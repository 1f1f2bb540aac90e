"""Outcomes by hand: the judgment of one answer, and intervals that count problems."""

import numpy as np
import pytest

from cotinterp.behavior.outcomes import NONE, SHUFFLED, SUBSTITUTE, EditResult, Outcome, TraceEdit, judge
from cotinterp.results.intervals import wilson
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve

LABELS = {"task": "s3", "regime": "cot", "seed": 0}
PROBLEMS = solve(get_task("s3"), np.array([[a, b, 1] for a in range(6) for b in range(6)]))


def result_of(*groups):
    """One group for each problem in turn: the answers after its edits of step 1, each edit with another total."""
    edits = [
        TraceEdit(problem, 1, (problem.totals[0] + shift) % 6, 100 + shift, "", answer)
        for problem, answers in zip(PROBLEMS, groups, strict=False)
        for shift, answer in enumerate(answers, start=1)
    ]
    return EditResult(tuple(edits), (Outcome.OTHER,) * len(edits), (), LABELS)


def test_an_answer_is_judged_once():
    assert judge(5, 5, 3) is Outcome.FOLLOWS
    assert judge(3, 5, 3) is Outcome.IGNORES
    assert judge(4, 5, 3) is Outcome.OTHER
    assert judge(None, 5, 3) is Outcome.OTHER


def test_rates_by_hand():
    original = PROBLEMS[0].answer
    frame = result_of([101, original, None], [101, 102, 103]).frame().set_index(["edit", "outcome"])
    rates = frame.loc[SUBSTITUTE, "rate"]
    assert rates.to_dict() == pytest.approx({"follows": 4 / 6, "ignores": 1 / 6, "other": 1 / 6})
    assert frame.loc[SHUFFLED, "rate"].to_dict() == {"follows": 0.0, "ignores": 0.0, "other": 1.0}
    assert (frame["n"] == 6).all()


def test_a_rate_pools_edits_although_problems_have_different_numbers_of_them():
    frame = result_of([101], [None, None, None]).frame().set_index(["edit", "outcome"])
    assert frame.loc[(SUBSTITUTE, "follows"), "rate"] == 1 / 4


def test_one_edit_a_problem_has_the_interval_of_wilson():
    cell = result_of(*[[101]] * 12, *[[None]] * 8).frame().set_index(["edit", "outcome"]).loc[(SUBSTITUTE, "follows")]
    assert (cell["rate"], cell["n"]) == (12 / 20, 20)
    assert (cell["ci_low"], cell["ci_high"]) == wilson(12, 20)


def test_five_equal_edits_a_problem_are_one_piece_of_evidence():
    once = [[101]] * 18 + [[None]] * 18
    often = [[101, 102, 103, 104, 105]] * 18 + [[None] * 5] * 18
    one, many = (
        result_of(*groups).frame().set_index(["edit", "outcome"]).loc[(SUBSTITUTE, "follows")]
        for groups in (once, often)
    )
    assert (one["rate"], many["rate"], many["n"]) == (0.5, 0.5, 5 * one["n"])
    assert many["ci_high"] - many["ci_low"] == pytest.approx(one["ci_high"] - one["ci_low"], rel=0.15)
    naive = wilson(90, 180)
    assert many["ci_high"] - many["ci_low"] > 1.8 * (naive.high - naive.low)


def test_where_all_edits_agree_the_interval_has_the_width_of_the_problems():
    frame = result_of(*[[101, 102, 103]] * 10).frame().set_index(["edit", "outcome"])
    follows, ignores = frame.loc[(SUBSTITUTE, "follows")], frame.loc[(SUBSTITUTE, "ignores")]
    assert (follows["ci_low"], follows["ci_high"]) == wilson(10, 10)
    assert (ignores["ci_low"], ignores["ci_high"]) == wilson(0, 10)


def test_the_true_total_is_the_control():
    problem = PROBLEMS[0]
    right = TraceEdit(problem, 1, problem.totals[0], problem.answer, "", problem.answer)
    wrong = TraceEdit(PROBLEMS[1], 1, PROBLEMS[1].totals[0], PROBLEMS[1].answer, "", None)
    frame = EditResult((right, wrong), (None, None), (), LABELS).frame()
    assert frame[["edit", "outcome", "rate"]].to_numpy().tolist() == [[NONE, "follows", 0.5], [NONE, "other", 0.5]]
