"""A reader, a model that recomputes, and one that does neither: what editing their traces leaves in the table."""

import numpy as np
import pandas as pd
import pytest

from cotinterp.behavior.edit_kinds import ALL_EDITS, SubstituteTotal
from cotinterp.behavior.edits import trace_edits
from cotinterp.calibration.ground_truth import GroundTruth, handmade_models, untrained
from cotinterp.studies.answers import CLOSED, edits
from cotinterp.studies.evidence import CELL, COUNTS
from cotinterp.studies.subject import Effort, Subject

EFFORT = Effort(edited=7, edits_per_step=2)
KNOWN = {made.name: made for made in handmade_models()}
WOULD = {"reader (totals)": "follows", "reader (cot)": "follows", "recomputer (cot)": "ignores"}
"""What each model makes of an edit that leaves the trace open."""


def subject_of(made: GroundTruth) -> Subject:
    return Subject(
        model=made.model, task=made.task, regime=made.regime, run_seed=0, k_range=(3, 4), trained_on=made.trained_on
    )


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """The rows of two readers and of a model that recomputes."""
    return {name: edits(subject_of(KNOWN[name]), EFFORT) for name in WOULD}


def rate(table: pd.DataFrame, condition: str, measure: str = "edit", **where: int) -> float:
    rows = table[(table["measure"] == measure) & (table["condition"] == condition)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows), f"no rows of {measure} {condition} {where}"
    return float((rows["value"] * rows["problems"]).sum() / (rows["trials"] * rows["problems"]).sum())


def test_rows_are_those_of_the_table_of_evidence(tables):
    for table in tables.values():
        assert tuple(table.columns) == (*CELL, *COUNTS)
        assert not table.duplicated([*CELL, "value", "trials"]).any()
        assert set(table["measure"]) == {"edit", "edit_by_step"}
        assert set(table["k"]) == {3, 4}


@pytest.mark.parametrize("kind", ["substitute_total", "swap_prefix"])
@pytest.mark.parametrize("name", WOULD)
def test_a_reader_follows_and_a_recomputer_ignores(tables, name, kind):
    for k in (3, 4):
        for outcome in ("follows", "ignores"):
            assert rate(tables[name], f"{kind}:{outcome}", k=k) == float(outcome == WOULD[name])


def test_both_answer_the_true_trace_rightly_cut_and_closed(tables):
    for table in tables.values():
        for control in ("none", CLOSED):
            assert rate(table, f"{control}:follows") == 1.0
        assert not table["condition"].isin(["none:ignores", f"{CLOSED}:ignores"]).any()


@pytest.mark.parametrize("name", WOULD)
def test_by_chance_neither_agrees(tables, name):
    """Judged by the answers of another problem; six answers there are."""
    for outcome in ("follows", "ignores"):
        assert rate(tables[name], f"shuffled_target:{outcome}") < 0.4
        assert rate(tables[name], f"shuffled_target:swap:{outcome}") < 0.5


def test_steps_are_told_apart_and_add_up(tables):
    """Every problem of four operands has edits at each of three steps; all of them together are the edits of k."""
    for name, outcome in WOULD.items():
        table = tables[name]
        by_step = table[table["measure"] == "edit_by_step"]
        assert set(by_step[by_step["k"] == 4]["step"]) == {1, 2, 3}
        assert set(by_step["condition"]) == {"substitute_total:follows", "substitute_total:ignores"}
        for step in (1, 2, 3):
            assert rate(table, f"substitute_total:{outcome}", "edit_by_step", k=4, step=step) == 1.0
        for k in (3, 4):
            cells = table[(table["condition"] == f"substitute_total:{outcome}") & (table["k"] == k)]
            trials = (cells["trials"] * cells["problems"]).groupby(cells["measure"]).sum()
            assert trials["edit"] == trials["edit_by_step"]


def test_a_problem_keeps_all_its_edits_of_a_kind_in_one_row(tables):
    """Two wrong totals at each of three steps; no other kind is made more than once a step."""
    rows = tables["reader (cot)"].query("measure == 'edit' and k == 4")
    of = {condition: set(cell["trials"]) for condition, cell in rows.groupby("condition")}
    assert of["substitute_total:follows"] == {6.0}
    assert max(of["swap_prefix:follows"]) <= 3.0
    assert of["swap:follows"] == of[f"{CLOSED}:follows"] == {1.0}
    assert of["none:follows"] == {3.0}
    assert rows.query("condition == 'none:follows'")["problems"].sum() == 7


def test_rates_are_those_of_the_instrument(tables):
    made = KNOWN["recomputer (cot)"]
    subject = subject_of(made)
    problems = [problem for k in (3, 4) for problem in subject.heldout(7, k=k)]
    result = trace_edits(
        made.model, made.task, made.regime, problems, edits=[SubstituteTotal(2)], rng=np.random.default_rng(0)
    )
    frame = result.frame().query("edit == 'substitute_total'")
    for row in frame[frame["outcome"] != "other"].to_dict("records"):
        condition = f"substitute_total:{row['outcome']}"
        assert rate(tables[made.name], condition, "edit_by_step", step=row["step"]) == row["rate"]


def test_where_filler_stands_there_is_nothing_to_follow(tables):
    conditions = set(tables["reader (cot)"]["condition"])
    assert {"fill_totals:ignores", "fill_steps:ignores"} <= conditions
    assert not {"fill_totals:follows", "fill_steps:follows", "shuffled_target:fill_steps:follows"} & conditions
    assert {condition.split(":")[-2] for condition in conditions} == {
        *(kind.name for kind in ALL_EDITS),
        "none",
        CLOSED,
        "shuffled_target",
    }


def test_a_model_that_computes_nothing_does_neither():
    table = edits(subject_of(untrained("z6", "cot", 0)), EFFORT)
    for condition in ("substitute_total:follows", "substitute_total:ignores", "none:follows"):
        assert rate(table, condition) < 0.3


@pytest.mark.parametrize("name", ["lookup", "parallel"])
def test_no_rows_where_no_totals_are_written(name):
    table = edits(subject_of(KNOWN[name]), EFFORT)
    assert len(table) == 0
    assert tuple(table.columns) == (*CELL, *COUNTS)


def test_the_same_subject_gives_the_same_rows(tables):
    pd.testing.assert_frame_equal(edits(subject_of(KNOWN["reader (cot)"]), EFFORT), tables["reader (cot)"])
