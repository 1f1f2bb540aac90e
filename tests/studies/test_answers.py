"""What a model answers, and what it answers after an edited trace."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.behavior.edit_kinds import ALL_EDITS, SubstituteTotal
from cotinterp.behavior.edits import trace_edits
from cotinterp.behavior.errors import CORRECT_ANSWER, categories
from cotinterp.behavior.generalization import generalization_by_k
from cotinterp.calibration.ground_truth import GroundTruth, handmade_models, memorizer, training_side, untrained
from cotinterp.studies.answers import CLOSED, ERROR_KINDS, answers, edits
from cotinterp.studies.evidence import CELL, COUNTS
from cotinterp.studies.subject import Effort, Subject
from cotinterp.tasks import FoldTask, get_task
from cotinterp.transcripts.problems import sample_problems

pytestmark = pytest.mark.slow

EFFORT = Effort(evaluated=60, reordered=25)
KNOWN = {made.name: made for made in (*handmade_models(), memorizer())}


class AddsOneToFive(FoldTask):
    """z6, but for 0 + 5 = 0: a model of z6 gets just that step wrong, and every other step right."""

    name = "adds-one-to-five"
    operands = "012345"
    commutative = False

    def step(self, total, operand):
        return np.where((total == 0) & (operand == 5), 0, (total + operand) % 6)


class StartsOneHigher(FoldTask):
    """z6, but the first operand stands for the state after it: a model of z6 copies a wrong total at step 1."""

    name = "starts-one-higher"
    operands = "012345"
    commutative = True

    def initial(self, operand):
        return (operand + 1) % 6

    def step(self, total, operand):
        return (total + operand) % 6


def subject_of(made: GroundTruth, k_range=(2, 4), **changes) -> Subject:
    subject = Subject(
        model=made.model, task=made.task, regime=made.regime, run_seed=3, k_range=k_range, trained_on=made.trained_on
    )
    return replace(subject, **changes)


def of_another_task(task: FoldTask) -> Subject:
    """A reader of z6 that is judged by another task; the prompts are the same."""
    return subject_of(KNOWN["reader (cot)"], task=task, trained_on=training_side(task, (2, 3)), k_range=(2, 3))


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """The rows of every kind of known model."""
    names = ("lookup", "parallel", "random labels", "reader (totals)")
    return {name: answers(subject_of(KNOWN[name]), EFFORT) for name in names}


def rates(table: pd.DataFrame, measure: str, condition: str = "") -> dict[int, float]:
    rows = table[(table["measure"] == measure) & (table["condition"] == condition)]
    return {
        int(k): (cell["value"] * cell["problems"]).sum() / (cell["trials"] * cell["problems"]).sum()
        for k, cell in rows.groupby("k")
    }


def test_rows_are_those_of_the_table_of_evidence(tables):
    for table in tables.values():
        assert tuple(table.columns) == (*CELL, *COUNTS)
        assert not table.duplicated([*CELL, "value", "trials"]).any()
        assert (table["step"] == -1).all()


@pytest.mark.parametrize("name", ["parallel", "reader (totals)"])
def test_an_algorithm_answers_problems_it_never_saw(tables, name):
    assert set(rates(tables[name], "accuracy", "train").values()) == {1.0}
    assert set(rates(tables[name], "accuracy", "heldout").values()) == {1.0}


@pytest.mark.parametrize("name", ["lookup", "random labels"])
def test_a_table_answers_its_own_problems_alone(tables, name):
    assert set(rates(tables[name], "accuracy", "train").values()) == {1.0}
    assert rates(tables[name], "accuracy", "heldout")[4] < 0.4


def test_as_many_problems_as_there_are_and_no_more_than_asked_for(tables):
    """Of 36 pairs of operands some 7 are held out; of four operands there are more than 60 on both sides."""
    cells = tables["lookup"].query("measure == 'accuracy'").groupby(["condition", "k"])["problems"].sum()
    heldout = sample_problems(get_task("z6"), 2, 36, split="heldout", rng=np.random.default_rng(0))
    assert cells["heldout", 2] == len(heldout)
    assert cells["heldout", 4] == cells["train", 4] == 60


@pytest.mark.parametrize("name", ["lookup", "parallel", "random labels"])
def test_baselines_are_those_of_the_generalization_ratio(tables, name):
    """On the same problems, computed there as means; and in as many rows as there are held-out problems."""
    subject, table = subject_of(KNOWN[name]), tables[name]
    measured = accuracy_by_k(subject.model, subject.task, subject.regime, subject.evaluation_problems(60))
    cells = generalization_by_k(subject.task, measured, subject.trained_on).cells
    measures = ["chance", "nearest", *(["reordered"] if subject.task.commutative else [])]
    for measure in measures:
        assert rates(table, measure) == pytest.approx({cell.k: getattr(cell, measure) for cell in cells}, rel=1e-3)
        counts = table[table["measure"] == measure].groupby("k")["problems"].sum()
        assert dict(counts) == {cell.k: cell.n_heldout for cell in cells}
    assert ("reordered" in set(table["measure"])) == subject.task.commutative
    assert table[table["measure"] == "chance"].groupby("k").size().eq(1).all()


def test_a_sum_is_the_same_in_any_order_and_a_table_has_no_entry_for_it(tables):
    assert set(rates(tables["parallel"], "agreement").values()) == {1.0}
    chance = rates(tables["lookup"], "agreement_chance")
    for k, rate in rates(tables["lookup"], "agreement").items():
        assert rate < 0.6 if k == 2 else rate == pytest.approx(chance[k], abs=0.25)


def test_trials_of_the_agreement_are_the_orders_that_were_asked(tables):
    """Two operands have one other order; a problem of four up to four that are asked. Counts are whole."""
    rows = tables["lookup"].query("measure == 'agreement'")
    assert set(rows[rows["k"] == 2]["trials"]) == {1.0}
    assert rows[rows["k"] == 4]["trials"].max() == 4.0
    assert (rows["value"] == rows["value"].round()).all()
    assert (rows["value"] <= rows["trials"]).all()
    assert rows[rows["k"] == 4]["problems"].sum() == 25


def test_no_agreement_where_every_order_was_trained_on():
    made = KNOWN["parallel"]
    pairs = {problem.operands: problem for problem in made.trained_on if problem.k == 2}
    both = tuple(problem for (x, y), problem in pairs.items() if (y, x) in pairs)
    assert any(x == y for x, y in pairs)
    table = answers(subject_of(made, trained_on=(*both, both[0]), k_range=(2, 2)), EFFORT)
    assert set(table["measure"]) == {"accuracy", "chance", "nearest", "reordered"}
    missing = next(problem for problem in both if len(set(problem.operands)) == 2)
    but_one = tuple(problem for problem in both if problem is not missing)
    table = answers(subject_of(made, trained_on=but_one, k_range=(2, 2)), EFFORT)
    assert table.query("measure == 'agreement'")["problems"].sum() == 1


def test_order_is_not_asked_about_where_it_matters():
    made = untrained("s3", "direct", 0)
    table = answers(subject_of(made, trained_on=made.trained_on[:200]), replace(EFFORT, evaluated=20))
    assert set(table["measure"]) == {"accuracy", "chance", "nearest"}


def test_regimes_that_write_totals_have_errors_and_no_baselines_and_none_where_nothing_is_wrong(tables):
    assert set(tables["reader (totals)"]["measure"]) == {"accuracy"}
    errors = answers(of_another_task(StartsOneHigher()), EFFORT)
    assert set(errors["measure"]) == {"accuracy", "error_kind", "error_category"}


def errors_of(table: pd.DataFrame, measure: str) -> dict[str, float]:
    conditions = table[table["measure"] == measure]["condition"].unique()
    return {condition: rates(table, measure, condition)[3] for condition in conditions}


def test_wrong_steps_are_arithmetic_and_there_are_as_many_as_the_task_says():
    """The model writes 0 + 5 = 5. Where it does, the answer is off, but for a later step of the task that loses it."""
    task = AddsOneToFive()
    subject = of_another_task(task)
    table = answers(subject, EFFORT)
    asked = [problem for problem in subject.evaluation_problems(60)["heldout"] if problem.k == 3]
    wrong = [problem for problem in asked if problem.answer != sum(problem.operands) % 6]
    assert 0 < len(wrong) < len(asked)
    assert rates(table, "accuracy", "heldout")[3] == pytest.approx(1 - len(wrong) / len(asked))
    assert errors_of(table, "error_kind") == {"arithmetic": 1.0, "bookkeeping": 0.0, "copying": 0.0}
    counted = table.query("measure == 'error_kind' and k == 3").groupby("condition")["problems"].sum()
    assert set(counted) == {len(wrong)}


def test_a_wrong_first_total_is_a_wrong_copy():
    table = answers(of_another_task(StartsOneHigher()), EFFORT)
    assert set(rates(table, "accuracy", "heldout").values()) == {0.0}
    assert errors_of(table, "error_kind") == {"arithmetic": 0.0, "bookkeeping": 0.0, "copying": 1.0}
    assert errors_of(table, "error_category")["copied_wrong_total"] == 1.0


def test_what_a_model_at_its_initialization_writes_is_no_trace():
    made = untrained("z6", "cot", 0)
    table = answers(subject_of(made, k_range=(3, 3)), replace(EFFORT, evaluated=20))
    assert set(rates(table, "accuracy", "heldout").values()) == {0.0}
    assert errors_of(table, "error_kind") == {"arithmetic": 0.0, "bookkeeping": 1.0, "copying": 0.0}


def test_every_wrong_output_is_of_one_kind_and_of_one_category():
    table = answers(of_another_task(AddsOneToFive()), EFFORT)
    for measure, names in (("error_kind", ERROR_KINDS), ("error_category", set(categories("cot")) - CORRECT_ANSWER)):
        shares = errors_of(table, measure)
        assert set(shares) == {str(name) for name in names}
        assert sum(shares.values()) == pytest.approx(1.0)


def test_a_held_out_problem_that_was_trained_on_is_refused():
    subject = subject_of(KNOWN["lookup"])
    leak = sample_problems(subject.task, 4, 1, split="heldout", rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="held-out problems were trained on, e.g. operands .* the split leaks"):
        answers(
            replace(subject, trained_on=(*subject.trained_on, *subject.evaluation_problems(60)["heldout"][:1], *leak)),
            EFFORT,
        )


def test_the_same_subject_gives_the_same_rows(tables):
    pd.testing.assert_frame_equal(answers(subject_of(KNOWN["lookup"]), EFFORT), tables["lookup"])


EFFORT_EDITS = Effort(edited=7, edits_per_step=2)
KNOWN_EDITS = {made.name: made for made in handmade_models()}
WOULD = {"reader (totals)": "follows", "reader (cot)": "follows", "recomputer (cot)": "ignores"}
"""What each model makes of an edit that leaves the trace open."""


def subject_of_edits(made: GroundTruth) -> Subject:
    return Subject(
        model=made.model, task=made.task, regime=made.regime, run_seed=0, k_range=(3, 4), trained_on=made.trained_on
    )


@pytest.fixture(scope="module")
def tables_edits() -> dict[str, pd.DataFrame]:
    """The rows of two readers and of a model that recomputes."""
    return {name: edits(subject_of_edits(KNOWN_EDITS[name]), EFFORT_EDITS) for name in WOULD}


def rate(table: pd.DataFrame, condition: str, measure: str = "edit", **where: int) -> float:
    rows = table[(table["measure"] == measure) & (table["condition"] == condition)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows), f"no rows of {measure} {condition} {where}"
    return float((rows["value"] * rows["problems"]).sum() / (rows["trials"] * rows["problems"]).sum())


def test_rows_are_those_of_the_table_of_evidence_edits(tables_edits):
    for table in tables_edits.values():
        assert tuple(table.columns) == (*CELL, *COUNTS)
        assert not table.duplicated([*CELL, "value", "trials"]).any()
        assert set(table["measure"]) == {"edit", "edit_by_step"}
        assert set(table["k"]) == {3, 4}


@pytest.mark.parametrize("kind", ["substitute_total", "swap_prefix"])
@pytest.mark.parametrize("name", WOULD)
def test_a_reader_follows_and_a_recomputer_ignores(tables_edits, name, kind):
    for k in (3, 4):
        for outcome in ("follows", "ignores"):
            assert rate(tables_edits[name], f"{kind}:{outcome}", k=k) == float(outcome == WOULD[name])


def test_both_answer_the_true_trace_rightly_cut_and_closed(tables_edits):
    for table in tables_edits.values():
        for control in ("none", CLOSED):
            assert rate(table, f"{control}:follows") == 1.0
        assert not table["condition"].isin(["none:ignores", f"{CLOSED}:ignores"]).any()


@pytest.mark.parametrize("name", WOULD)
def test_by_chance_neither_agrees(tables_edits, name):
    """Judged by the answers of another problem; six answers there are."""
    for outcome in ("follows", "ignores"):
        assert rate(tables_edits[name], f"shuffled_target:{outcome}") < 0.4
        assert rate(tables_edits[name], f"shuffled_target:swap:{outcome}") < 0.5


def test_steps_are_told_apart_and_add_up(tables_edits):
    """Every problem of four operands has edits at each of three steps; all of them together are the edits of k."""
    for name, outcome in WOULD.items():
        table = tables_edits[name]
        by_step = table[table["measure"] == "edit_by_step"]
        assert set(by_step[by_step["k"] == 4]["step"]) == {1, 2, 3}
        assert set(by_step["condition"]) == {"substitute_total:follows", "substitute_total:ignores"}
        for step in (1, 2, 3):
            assert rate(table, f"substitute_total:{outcome}", "edit_by_step", k=4, step=step) == 1.0
        for k in (3, 4):
            cells = table[(table["condition"] == f"substitute_total:{outcome}") & (table["k"] == k)]
            trials = (cells["trials"] * cells["problems"]).groupby(cells["measure"]).sum()
            assert trials["edit"] == trials["edit_by_step"]


def test_a_problem_keeps_all_its_edits_of_a_kind_in_one_row(tables_edits):
    """Two wrong totals at each of three steps; no other kind is made more than once a step."""
    rows = tables_edits["reader (cot)"].query("measure == 'edit' and k == 4")
    of = {condition: set(cell["trials"]) for condition, cell in rows.groupby("condition")}
    assert of["substitute_total:follows"] == {6.0}
    assert max(of["swap_prefix:follows"]) <= 3.0
    assert of["swap:follows"] == of[f"{CLOSED}:follows"] == {1.0}
    assert of["none:follows"] == {3.0}
    assert rows.query("condition == 'none:follows'")["problems"].sum() == 7


def test_rates_are_those_of_the_instrument(tables_edits):
    made = KNOWN_EDITS["recomputer (cot)"]
    subject = subject_of_edits(made)
    problems = [problem for k in (3, 4) for problem in subject.heldout(7, k=k)]
    result = trace_edits(
        made.model, made.task, made.regime, problems, edits=[SubstituteTotal(2)], rng=np.random.default_rng(0)
    )
    frame = result.frame().query("edit == 'substitute_total'")
    for row in frame[frame["outcome"] != "other"].to_dict("records"):
        condition = f"substitute_total:{row['outcome']}"
        assert rate(tables_edits[made.name], condition, "edit_by_step", step=row["step"]) == row["rate"]


def test_where_filler_stands_there_is_nothing_to_follow(tables_edits):
    conditions = set(tables_edits["reader (cot)"]["condition"])
    assert {"fill_totals:ignores", "fill_steps:ignores"} <= conditions
    assert not {"fill_totals:follows", "fill_steps:follows", "shuffled_target:fill_steps:follows"} & conditions
    assert {condition.split(":")[-2] for condition in conditions} == {
        *(kind.name for kind in ALL_EDITS),
        "none",
        CLOSED,
        "shuffled_target",
    }


def test_a_model_that_computes_nothing_does_neither():
    table = edits(subject_of_edits(untrained("z6", "cot", 0)), EFFORT_EDITS)
    for condition in ("substitute_total:follows", "substitute_total:ignores", "none:follows"):
        assert rate(table, condition) < 0.3


@pytest.mark.parametrize("name", ["lookup", "parallel"])
def test_no_rows_where_no_totals_are_written(name):
    table = edits(subject_of_edits(KNOWN_EDITS[name]), EFFORT_EDITS)
    assert len(table) == 0
    assert tuple(table.columns) == (*CELL, *COUNTS)


def test_the_same_subject_gives_the_same_rows_edits(tables_edits):
    pd.testing.assert_frame_equal(
        edits(subject_of_edits(KNOWN_EDITS["reader (cot)"]), EFFORT_EDITS), tables_edits["reader (cot)"]
    )
