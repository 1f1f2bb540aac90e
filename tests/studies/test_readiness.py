"""Rows of evidence on readiness, from models whose mechanism is known."""

from dataclasses import replace

import numpy as np
import pytest

from cotinterp.calibration.ground_truth import handmade_models, untrained
from cotinterp.studies.evidence import CELL, COUNTS
from cotinterp.studies.readiness import readiness
from cotinterp.studies.subject import QUICK, Subject

pytestmark = pytest.mark.slow

CURVE = {f"{trace}:{how}" for trace in ("true", "edited", "shuffled") for how in ("forced", "free")}
KNOWN = {truth.name: truth for truth in handmade_models()}


def subject(truth):
    return Subject(
        model=truth.model, task=truth.task, regime=truth.regime, run_seed=0, k_range=(2, 4), trained_on=truth.trained_on
    )


@pytest.fixture(scope="module")
def rows():
    return {name: readiness(subject(KNOWN[name]), QUICK) for name in ("reader (cot)", "recomputer (totals)")}


def number(table, measure, condition="", step=-1):
    cell = table[(table["measure"] == measure) & (table["condition"] == condition) & (table["step"] == step)]
    return (cell["value"] * cell["problems"]).sum() / (cell["trials"] * cell["problems"]).sum()


def test_every_cell_is_there_and_has_every_problem(rows):
    for table in rows.values():
        assert list(table.columns) == [*CELL, *COUNTS]
        assert set(table["k"]) == {4}
        of = table.groupby(["measure", "condition", "step"])["problems"].sum()
        for measure in ("answer_prob", "answer_log_prob"):
            assert set(of[measure].index) == {(condition, step) for condition in CURVE for step in range(4)}
        assert set(of["followed_prob"].index) == {
            (f"edited:{how}", step) for how in ("forced", "free") for step in range(4)
        }
        assert set(of) == {QUICK.ready}
        assert set(table["measure"]) == {
            "answer_prob",
            "answer_log_prob",
            "followed_prob",
            "marginal_log_prob",
            "own_log_prob",
            "own_wrong_share",
        }


def test_a_reader_follows_the_wrong_total_and_a_recomputer_does_not(rows):
    read, kept = rows["reader (cot)"], rows["recomputer (totals)"]
    for step in (1, 2, 3):
        assert number(read, "answer_prob", "edited:free", step) < 0.01
        assert number(read, "answer_log_prob", "edited:free", step) < -3
        assert number(read, "followed_prob", "edited:free", step) > 0.99
        assert number(kept, "answer_prob", "edited:free", step) > 0.99
        assert number(kept, "followed_prob", "edited:free", step) < 0.01
    for table in (read, kept):
        for step in range(4):
            assert number(table, "answer_prob", "true:free", step) > 0.99
        assert number(table, "marginal_log_prob") == pytest.approx(number(table, "own_log_prob"), abs=0.01)
        assert number(table, "own_wrong_share") == 0


def test_an_untrained_model_knows_no_answer_and_follows_nothing():
    table = readiness(subject(untrained("z6", "cot", 0)), QUICK)
    for step in (0, 3):
        assert number(table, "answer_prob", "true:free", step) < 0.1
    assert number(table, "followed_prob", "edited:free", 3) < 0.1
    assert number(table, "marginal_log_prob") < np.log(0.1)


def test_a_model_that_writes_no_totals_has_no_rows(rows):
    for truth in (KNOWN["lookup"], untrained("z6", "filler", 0)):
        table = readiness(subject(truth), QUICK)
        assert table.empty
        assert list(table.columns) == [*CELL, *COUNTS]


def test_the_same_subject_gives_the_same_rows():
    few = replace(QUICK, ready=4, traces=2)
    once, again = (readiness(subject(KNOWN["reader (totals)"]), few) for _ in range(2))
    assert once.equals(again)
