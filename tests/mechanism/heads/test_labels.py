"""Labels follow their rules at the thresholds, and a reader needs both kinds of evidence."""

from dataclasses import replace

import pytest

from cotinterp.mechanism.heads.labels import (
    HEAD_LABELS,
    MEASURES,
    READER_LABELS,
    Condition,
    LabelRule,
    label_head,
    rule_text,
)

NOTHING = {
    "clean_low": 1.0,
    "prefers_answer": 1.0,
    "ablation_effect": 0.0,
    "ablation_low": -0.01,
    "ablation_high": 0.01,
    "ablation_p": 1.0,
    "attribution_share": 0.0,
    "attribution_low": -0.01,
    "previous_total": 0.0,
    "next_operand": 0.0,
    "total_read_effect": 0.0,
    "total_read_low": 0.0,
    "operand_read_effect": 0.0,
    "operand_read_low": 0.0,
}
NEEDED = {"ablation_effect": 0.3, "ablation_low": 0.2, "ablation_high": 0.4, "ablation_p": 0.05}
TOTAL = {**NEEDED, "total_read_effect": 0.05, "total_read_low": 0.01}
OPERAND = {**NEEDED, "operand_read_effect": 0.05, "operand_read_low": 0.01}
BOTH = {**TOTAL, **OPERAND}


@pytest.mark.parametrize(
    ("label", "evidence"),
    [
        ("inert", {}),
        ("total reader", {**TOTAL, "previous_total": 0.5}),
        ("operand reader", {**OPERAND, "next_operand": 0.5}),
        ("iteration head", {**BOTH, "previous_total": 0.25, "next_operand": 0.6}),
        ("iteration head", {**BOTH, "previous_total": 0.25, "next_operand": 0.25}),
        ("operand reader", {**OPERAND, "previous_total": 0.25, "next_operand": 0.6}),
        ("total reader", {**BOTH, "previous_total": 0.5, "next_operand": 0.24}),
        ("mixed", {**BOTH, "previous_total": 0.49, "next_operand": 0.24}),
        ("mixed", {**OPERAND, "previous_total": 1.0}),
        ("mixed", {**TOTAL, "total_read_effect": 0.04, "previous_total": 1.0}),
        ("mixed", {**TOTAL, "total_read_low": 0.0, "previous_total": 1.0}),
        ("mixed", {**TOTAL, "ablation_p": 0.051, "previous_total": 1.0}),
        ("answer writer", {**NEEDED, "attribution_share": 0.1, "attribution_low": 0.05}),
        ("mixed", {**NEEDED, "attribution_share": 0.1, "attribution_low": -0.05}),
        ("mixed", {**NEEDED}),
        ("mixed", {"ablation_effect": -0.3, "ablation_low": -0.4, "ablation_high": -0.2}),
        ("undetermined", {**TOTAL, "previous_total": 1.0, "clean_low": 0.0}),
        ("undetermined", {**TOTAL, "previous_total": 1.0, "prefers_answer": 0.74}),
        ("total reader", {**TOTAL, "previous_total": 1.0, "prefers_answer": 0.75}),
    ],
)
def test_labels_at_their_thresholds(label, evidence):
    assert label_head({**NOTHING, **evidence}) == label


@pytest.mark.parametrize("attention", [("previous_total",), ("next_operand",), ("previous_total", "next_operand")])
def test_attention_without_need_makes_no_reader(attention):
    uses = {"total_read_effect": 0.3, "total_read_low": 0.2, "operand_read_effect": 0.3, "operand_read_low": 0.2}
    looks = {**NOTHING, **dict.fromkeys(attention, 0.9), **uses}
    assert label_head(looks) == "inert"
    assert label_head({**looks, "ablation_effect": 0.3, "ablation_low": -0.1, "ablation_high": 0.6}) == "mixed"
    assert label_head({**looks, "ablation_effect": 0.04, "ablation_low": 0.03, "ablation_high": 0.05}) == "mixed"


def test_a_wide_interval_around_zero_is_not_inert_and_neither_is_a_small_loss_that_was_found():
    assert label_head({**NOTHING, "ablation_low": -0.3, "ablation_high": 0.3}) == "mixed"
    assert label_head({**NOTHING, "ablation_p": 0.05}) == "mixed"


def test_what_was_not_measured_supports_no_label():
    assert label_head(dict.fromkeys(MEASURES, float("nan"))) == "mixed"


def test_every_condition_of_every_rule_is_needed():
    """Evidence on the right side of every threshold of a rule holds it; moving any one to the wrong side does not."""
    for rule in HEAD_LABELS:
        for broken in rule.conditions:
            sign = 1 if broken.relation in (">", ">=") else -1
            others = [condition for condition in rule.conditions if condition is not broken]
            evidence = {**NOTHING}
            for condition in others:
                evidence[condition.measure] = condition.threshold + (
                    0.001 if condition.relation in (">", ">=") else -0.001
                )
            assert not rule.holds({**evidence, broken.measure: broken.threshold - sign * 0.01})


def test_rules_that_cover_nothing_are_refused():
    with pytest.raises(ValueError, match="no rule covers"):
        label_head(NOTHING, [LabelRule("never", "", (Condition("clean_low", "<", 0.0),))])


def test_the_text_names_every_rule_threshold_and_measure():
    text = rule_text()
    for rule in HEAD_LABELS:
        assert str(rule) in text
    assert "total reader: previous_total >= 0.5 and ablation_low > 0 and ablation_p <= 0.05 and ablation_effect" in text
    assert all(f"{measure}: " in text for measure in MEASURES)
    stricter = replace(HEAD_LABELS[3], conditions=(Condition("previous_total", ">=", 0.9),))
    assert "total reader: previous_total >= 0.9 (" in rule_text([stricter])


def test_readers_are_labels_that_exist():
    assert {rule.label for rule in HEAD_LABELS} >= READER_LABELS
