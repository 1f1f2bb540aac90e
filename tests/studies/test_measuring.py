"""Which measures a subject is given, and what their rows are called."""

from dataclasses import replace

import numpy as np
import pytest

from cotinterp.behavior.accuracy import longest_k
from cotinterp.calibration.ground_truth import handmade_models, memorizer
from cotinterp.models.handmade import parallel
from cotinterp.models.spec import ModelSpec
from cotinterp.studies.evidence import COLUMNS, REFUSED, tally
from cotinterp.studies.measuring import (
    ANSWERS_OF_VARIANTS,
    as_taught,
    beyond_training,
    measure,
    measures_of,
    outcomes,
)
from cotinterp.studies.subject import QUICK, Subject, untrained_twin


def subject_of(truth, **more):
    return Subject(
        model=truth.model,
        task=truth.task,
        regime=truth.regime,
        run_seed=5,
        k_range=(2, 3),
        trained_on=truth.trained(20, k=2) + truth.trained(20, k=3),
        **more,
    )


@pytest.fixture(scope="module")
def subjects():
    return {truth.name: subject_of(truth) for truth in handmade_models()}


def names_of(subject):
    return [each.__name__ for each in measures_of(subject)]


def test_what_writes_totals_is_asked_everything(subjects):
    everything = ["answers", "edits", "families", "knock_outs", "probes", "readiness"]
    of_cot = [names_of(subject) for subject in subjects.values() if subject.regime == "cot"]
    assert of_cot
    assert all(names == everything for names in of_cot)


def test_what_writes_none_is_asked_less(subjects):
    direct = next(subject for subject in subjects.values() if subject.regime == "direct")
    assert names_of(direct) == ["answers", "probes"]
    assert names_of(replace(direct, regime="filler")) == ["answers"]


def test_variants_and_the_ceiling_of_memory_are_asked_what_they_get_right(subjects):
    assert all(names_of(replace(subject, variant="L1")) == ["outcomes"] for subject in subjects.values())
    assert names_of(subject_of(memorizer())) == ["outcomes"]


def test_outcomes_are_the_answers_and_what_chance_and_memory_are_worth(subjects):
    direct = next(subject for subject in subjects.values() if subject.regime == "direct")
    assert set(outcomes(direct, QUICK)["measure"]) == set(ANSWERS_OF_VARIANTS) - {"error_kind"}
    # What goes wrong in a trace has a kind; random weights are wrong all the time.
    cot = next(subject for subject in subjects.values() if subject.regime == "cot")
    guessing = replace(cot, model=untrained_twin(ModelSpec(n_layers=1, d_model=8, n_heads=1, d_mlp=8), cot.task, 0)())
    assert set(outcomes(guessing, QUICK)["measure"]) == {"accuracy", "error_kind"}


def test_rows_of_all_measures_carry_the_labels_of_the_subject(subjects):
    subject = replace(next(iter(subjects.values())), variant="mine")

    def first(of, effort):
        return tally("first", np.array([1.0, 0.0, 1.0]), k=effort.k)

    def nothing(of, effort):
        return tally("nothing", np.array([]), k=2)

    rows = measure(subject, QUICK, [first, nothing])
    assert list(rows.columns) == list(COLUMNS)
    assert rows[list(subject.labels)].drop_duplicates().to_dict("records") == [subject.labels]
    assert rows[["measure", "value", "problems"]].values.tolist() == [["first", 0.0, 1], ["first", 1.0, 2]]


def test_a_subject_without_rows_has_an_empty_table(subjects):
    rows = measure(next(iter(subjects.values())), QUICK, [])
    assert rows.empty
    assert list(rows.columns) == list(COLUMNS)


def test_a_refusal_is_a_row_and_takes_no_other_measure_with_it(subjects):
    def refuses(of, effort):
        raise ValueError("no  pairs")

    def right(of, effort):
        return tally("right", np.array([1.0]), k=2)

    rows = measure(next(iter(subjects.values())), QUICK, [refuses, right])
    assert rows["measure"].tolist() == [REFUSED, "right"]
    assert rows["condition"].tolist() == ["refuses: ValueError: no pairs", ""]


def test_a_fault_of_a_measure_is_no_refusal(subjects):
    def faulty(of, effort):
        return of.no_such_thing

    with pytest.raises(AttributeError, match="no_such_thing"):
        measure(next(iter(subjects.values())), QUICK, [faulty])


def rate(rows, measure, condition=""):
    chosen = rows[(rows["measure"] == measure) & (rows["condition"] == condition)]
    return (chosen["value"] * chosen["problems"]).sum() / (chosen["trials"] * chosen["problems"]).sum()


def test_a_model_that_only_writes_traces_leaks_them_and_one_that_only_answers_writes_none(subjects):
    """The reader was taught traces alone: asked for the answer at once it begins one, and follows those it is shown."""
    reader = next(subject for name, subject in subjects.items() if name == "reader (cot)")
    rows = as_taught(replace(reader, regime="direct"), QUICK)
    assert (rate(rows, "leakage"), rate(rows, "exact", "asked")) == (1.0, 0.0)
    assert (rate(rows, "exact", "trace"), rate(rows, "edit", "substitute_total:follows")) == (1.0, 1.0)
    assert rate(rows, "exact", "trace-train") == 1.0
    direct = next(subject for name, subject in subjects.items() if name == "parallel")
    roomy = replace(direct, model=parallel(direct.task, k_range=(2, 3), n_ctx=40))
    rows = as_taught(roomy, QUICK)
    assert (rate(rows, "leakage"), rate(rows, "exact", "asked"), rate(rows, "exact", "trace")) == (0.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="'cot' writes totals: ask the model for its answer"):
        as_taught(reader, QUICK)


def test_longer_problems_than_those_of_training_are_asked_as_far_as_they_fit(subjects):
    """A reader made for two and three operands, trained on two: of twice as many, four, three fit its context."""
    reader = next(subject for name, subject in subjects.items() if name == "reader (cot)")
    rows = beyond_training(replace(reader, k_range=(2, 2)), QUICK)
    most = min(4, longest_k(reader.model, reader.task, "cot"))
    assert set(rows["k"]) == set(range(3, most + 1))
    assert rate(rows[rows["k"] == 3], "accuracy", "beyond") == 1.0
    assert set(rows["condition"]) == {"beyond"}
