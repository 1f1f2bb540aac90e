"""Every instrument is right about every model whose mechanism is known, and a wrong answer would show."""

from dataclasses import replace

import pytest

from cotinterp.calibration.calibrate import COLUMNS, QUESTIONS, calibrate
from cotinterp.calibration.ground_truth import InstrumentAnswer, Question, by_kind

pytestmark = pytest.mark.slow

LABELS = [f"{question.instrument}: {question.text}" for question in QUESTIONS]


@pytest.mark.parametrize("question", QUESTIONS, ids=LABELS)
def test_every_answer_is_right(question, models):
    result = calibrate([replace(question, before=None)], models, quick=True)
    assert result.rows
    wrong = [f"{row.model}: {row.answer}, in truth {row.truth} ({row.evidence})" for row in result.wrong]
    assert not wrong


def test_each_pair_that_behavior_cannot_tell_apart_is_told_apart_by_several_instruments(models):
    """Reader and recomputer, lookup and parallel: the truths of these instruments differ."""
    of = {model.name: model for model in models}
    for one, other, least in (("reader (cot)", "recomputer (cot)", 6), ("lookup", "parallel", 3)):
        truths = [(question.instrument, question.truth(of[one]), question.truth(of[other])) for question in QUESTIONS]
        differ = {instrument for instrument, a, b in truths if a and b and a != b}
        assert len(differ) >= least, (one, other, differ)


def test_a_model_that_is_not_what_it_is_called_makes_rows_wrong(models):
    """Recomputers passed off as readers: edits, pairs, patching and knock-outs all say so."""
    of = {model.name: model for model in models}
    false = replace(of["recomputer (totals)"], kind="reader", heads=of["reader (totals)"].heads)
    cheap = [q for q in QUESTIONS if q.instrument in ("trace edit: substitute_total", "pair families", "patching")]
    result = calibrate([replace(question, before=None) for question in cheap], [false], quick=True)
    assert len(result.wrong) == len(result.rows) == len(cheap)


def test_an_instrument_that_refuses_has_not_answered(models):
    def refuse(model, quick):
        raise ValueError("there is nothing to measure")

    question = Question("a refusal", "does it answer?", by_kind(reader="yes"), refuse)
    row = calibrate([question], models[:1]).rows[0]
    assert (row.answer, row.right, row.evidence) == ("no answer", False, "ValueError: there is nothing to measure")


def test_the_table_says_what_was_asked_and_what_came_out(models):
    question = Question("x", "is it so?", by_kind(lookup="yes"), lambda *_: InstrumentAnswer("yes", "1 of 1"))
    result = calibrate([question], models)
    assert tuple(result.frame().columns) == COLUMNS
    (row,) = result.frame().to_dict("records")
    assert row == {
        "instrument": "x",
        "model": "lookup",
        "question": "is it so?",
        "truth": "yes",
        "answer": "yes",
        "right": True,
        "before": "not asked",
        "evidence": "1 of 1",
    }
    assert not result.wrong
