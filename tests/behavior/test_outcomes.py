"""Outcomes by hand: the judgment of one answer, and intervals that count problems."""

import numpy as np
import pytest

from cotinterp.behavior.edits import NONE, SHUFFLED, SUBSTITUTE, EditAnswer, EditResult, Outcome, chance_of, outcome_of
from cotinterp.results.intervals import wilson
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve

LABELS = {"task": "s3", "regime": "cot", "run_seed": 0}
PROBLEMS = solve(get_task("s3"), np.array([[a, b, 1] for a in range(6) for b in range(6)]))


def result_of(*groups):
    """One group for each problem in turn: the answers after its edits of step 1, each edit with another total."""
    edits = [
        EditAnswer(problem, 1, (problem.totals[0] + shift) % 6, 100 + shift, "", answer)
        for problem, answers in zip(PROBLEMS, groups, strict=False)
        for shift, answer in enumerate(answers, start=1)
    ]
    return EditResult(tuple(edits), (Outcome.OTHER,) * len(edits), (), LABELS)


def test_an_answer_is_judged_once():
    assert outcome_of(5, 5, 3) is Outcome.FOLLOWS
    assert outcome_of(3, 5, 3) is Outcome.IGNORES
    assert outcome_of(4, 5, 3) is Outcome.OTHER
    assert outcome_of(None, 5, 3) is Outcome.OTHER
    assert outcome_of(3, None, 3) is Outcome.IGNORES
    assert outcome_of(None, None, 3) is Outcome.OTHER


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
    right = EditAnswer(problem, 1, problem.totals[0], problem.answer, "", problem.answer, edit=NONE)
    wrong = EditAnswer(PROBLEMS[1], 1, PROBLEMS[1].totals[0], PROBLEMS[1].answer, "", None, edit=NONE)
    frame = EditResult((right, wrong), (None, None), (), LABELS).frame()
    assert frame[["edit", "outcome", "rate"]].to_numpy().tolist() == [[NONE, "follows", 0.5], [NONE, "other", 0.5]]


def whole_trace(problem, answer, *, edit="swap", followed=100, resumed=False):
    return EditAnswer(problem, -1, followed, followed, "", answer, edit=edit, resumed=resumed)


def test_kinds_of_edit_have_rows_of_their_own():
    edits = (
        *(EditAnswer(one, 1, (one.totals[0] + 1) % 6, 100, "", 100) for one in PROBLEMS[:4]),
        *(whole_trace(one, 100) for one in PROBLEMS[:3]),
        whole_trace(PROBLEMS[3], None, resumed=True),
        *(whole_trace(one, one.answer, edit="fill_totals", followed=None) for one in PROBLEMS[:2]),
        *(whole_trace(one, one.answer, edit=NONE, followed=one.answer) for one in PROBLEMS[:2]),
    )
    chance = [Outcome.OTHER] * 4 + [Outcome.FOLLOWS] + [Outcome.OTHER] * 3 + [Outcome.IGNORES] * 2 + [None] * 2
    result = EditResult(edits, tuple(chance), (), LABELS)
    frame = result.frame()
    assert list(dict.fromkeys(frame["edit"])) == [
        *(SUBSTITUTE, NONE, SHUFFLED, "swap", chance_of("swap"), "fill_totals", chance_of("fill_totals"))
    ]
    rates = frame.set_index(["edit", "step", "outcome"])["rate"].to_dict()
    assert rates["swap", -1, "follows"] == 3 / 4
    assert rates[chance_of("swap"), -1, "follows"] == 1 / 4
    assert rates["fill_totals", -1, "ignores"] == rates[chance_of("fill_totals"), -1, "ignores"] == 1.0
    assert not {(edit, -1, "follows") for edit in ("fill_totals", chance_of("fill_totals"))} & set(rates)
    assert rates[NONE, -1, "follows"] == 1.0
    assert (NONE, -1, "ignores") not in rates
    resumed = result.resumed().set_index("edit")
    assert resumed["rate"].to_dict() == {"swap": 1 / 4, "fill_totals": 0.0, NONE: 0.0}
    assert tuple(resumed.loc["swap", ["ci_low", "ci_high"]]) == wilson(1, 4)


def test_kinds_pooled_over_steps_stand_beside_their_chance():
    edits = (
        *(EditAnswer(one, 1, (one.totals[0] + 1) % 6, 100, "", 100) for one in PROBLEMS[:4]),
        *(EditAnswer(one, 2, (one.totals[1] + 1) % 6, 100, "", one.answer) for one in PROBLEMS[:4]),
        *(EditAnswer(one, 1, one.totals[0], one.answer, "", one.answer, edit=NONE) for one in PROBLEMS[:2]),
        whole_trace(PROBLEMS[0], 100),
        whole_trace(PROBLEMS[1], None, resumed=True),
        whole_trace(PROBLEMS[0], None, edit=NONE, followed=PROBLEMS[0].answer),
    )
    chance = [Outcome.FOLLOWS, *[Outcome.OTHER] * 7, None, None, Outcome.IGNORES, Outcome.OTHER, None]
    frame = EditResult(edits, tuple(chance), (), LABELS).pooled()
    assert list(frame.columns) == [
        *LABELS, "edit", "closed", "outcome", "n", "rate", "ci_low", "ci_high", "by_chance"
    ]  # fmt: skip
    rows = frame.set_index(["edit", "closed", "outcome"]).sort_index()
    assert list(dict.fromkeys(zip(frame["edit"], frame["closed"], strict=True))) == [
        (SUBSTITUTE, False), (NONE, False), (NONE, True), ("swap", True)
    ]  # fmt: skip
    follows = rows.loc[(SUBSTITUTE, False, "follows")]
    assert (follows["n"], follows["rate"], follows["by_chance"]) == (8, 0.5, 1 / 8)
    assert rows.loc["swap", True]["rate"].to_dict() == {"follows": 0.5, "ignores": 0.0, "other": 0.5, "resumed": 0.5}
    assert rows.loc[("swap", True, "ignores"), "by_chance"] == 0.5
    assert rows.loc[NONE, False]["rate"].to_dict() == {"follows": 1.0, "other": 0.0}
    assert rows.loc[NONE, True]["rate"].to_dict() == {"follows": 0.0, "other": 1.0, "resumed": 0.0}
    assert rows.loc[NONE, "by_chance"].isna().all()


def test_an_edit_of_the_whole_trace_has_neither_distance_nor_delta():
    result = EditResult((whole_trace(PROBLEMS[0], 100),), (None,), (), LABELS)
    row = result.examples().iloc[0]
    assert (row["step"], row["distance"], row["written_total"]) == (-1, -1, 100)
    assert row[["true_total", "delta"]].isna().all()
    assert result.by_distance()["distance"].tolist() == [-1] * 3
    assert result.by_distance(by_delta=True).empty


def test_an_operand_that_enters_before_step_1_is_furthest_from_the_answer():
    edit = EditAnswer(PROBLEMS[0], 0, 100, 100, "", 100, edit="edit_prompt", resumed=False)
    (row,) = EditResult((edit,), (None,), (), LABELS).examples().to_dict("records")
    assert (row["distance"], row["k"], row["outcome"]) == (2, 3, "follows")
