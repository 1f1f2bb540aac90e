"""Verdicts as values, tables and words."""

import json

import pytest

from cotinterp.claims.catalog import get_claim
from cotinterp.claims.judge import judge, judge_all
from cotinterp.claims.verdict import CRITERIA_COLUMNS, JSON_FIELDS, VERDICT_COLUMNS, judged_rivals, rival_state, shown
from tests.claims.claims import ACCURATE, BOTH, CONTROLLED
from tests.claims.worlds import accuracies, evidence

MADE = evidence(accuracies("cot", [0.9, 0.92, 0.91, 0.9, 0.93]))


def test_numbers_are_shown_in_their_unit():
    assert shown(0.1234, "points") == "12.3 points"
    assert shown(-0.1234, "points") == "\N{MINUS SIGN}12.3 points"
    assert shown(-0.0001, "points") == "0.0 points"
    assert shown(1.5, "nats") == "1.50 nats"
    assert shown(0.456, "") == "0.46"
    assert shown(float("nan"), "points") == "undefined"


def test_tables_have_their_columns_and_a_row_each():
    verdicts = judge_all([ACCURATE, BOTH], MADE)
    assert list(verdicts.frame().columns) == list(VERDICT_COLUMNS)
    assert list(verdicts.criteria_frame().columns) == list(CRITERIA_COLUMNS)
    assert len(verdicts.frame()) == 2
    assert len(verdicts.criteria_frame()) == 3
    assert verdicts.by_seed_frame()["estimate"].tolist() == pytest.approx([0.9, 0.92, 0.91, 0.9, 0.93] * 2)


def test_the_file_has_the_fields_of_the_house_and_no_number_that_is_none():
    found = json.loads(judge_all([ACCURATE, BOTH], evidence([*MADE.table.pipe(lambda t: [t])])).json())
    assert [list(one) for one in found] == [list(JSON_FIELDS)] * 2
    assert found[0]["verdict"] == "supported"
    assert json.loads(judge_all([BOTH], MADE).json())[0]["verdict"] == "inconclusive"


def test_a_verdict_that_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"no verdict on 'x' for task 'toy'; there are \[\('cot-is-accurate', 'toy'\)\]"):
        judge_all([ACCURATE], MADE).of("x", "toy")


def test_a_criterion_in_words():
    (part,) = judge(ACCURATE, MADE).criteria
    assert part.sentence.startswith("accuracy 91.2 points [")
    assert part.sentence.count("points") == 1


def test_what_only_a_missing_number_tells_apart_does_not_stand():
    claim = get_claim("direct-is-lookup-of-few")
    assert claim.predicts == {"few": "below", "many": "above"}
    # An algorithm at any size differs from the claim in few alone.
    assert judged_rivals(claim, {"many": "above"})[1] == ("an algorithm at any size", "open")
    assert judged_rivals(claim, {"many": "above", "few": "above"})[1] == ("an algorithm at any size", "stands")
    other = get_claim("direct-is-lookup-at-any-size")
    assert [state for _, state in judged_rivals(other, {"many": "above"})] == ["open", "open"]
    assert [state for _, state in judged_rivals(other, {"many": "above", "few": "below"})] == ["stands", "contradicted"]


def test_a_rival_stands_only_where_all_that_it_says_is_shown():
    alone, neither = BOTH.rivals
    assert rival_state(alone, {"cot": "above", "direct": "below"}) == "stands"
    assert rival_state(alone, {"cot": "above", "direct": None}) == "open"
    assert rival_state(alone, {"cot": None, "direct": "above"}) == "contradicted"
    assert rival_state(neither, {"direct": "above"}) == "open"


def test_a_broken_control_is_named_in_the_reason():
    made = evidence([*accuracies("cot", [0.9] * 5), *accuracies("direct", [0.2] * 5)])
    reason = judge(CONTROLLED, made).reason
    assert reason == (
        "A control does not pass, so nothing follows: direct 20.0 points does not pass (above 90.0 points)."
    )
