"""Labels follow their rules at the thresholds, a reader needs both kinds of evidence; the evidence by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.labels import (
    HEAD_LABELS,
    MEASURES,
    READER_LABELS,
    LabelCondition,
    LabelRule,
    attention_above_chance,
    head_evidence,
    heads_that_look,
    label_head,
    rule_text,
)
from cotinterp.mechanism.heads.read_scores import ReadScores
from cotinterp.results.multiplicity import max_statistic

NOTHING = {
    "n": 8.0,
    "n_used": 8.0,
    "clean_low": 1.0,
    "prefers_answer": 1.0,
    "ablation_effect": 0.0,
    "ablation_low": -0.01,
    "ablation_high": 0.01,
    "ablation_p": 1.0,
    "attribution_share": 0.0,
    "attribution_low": -0.01,
    "attribution_high": 0.01,
    "previous_total": 0.0,
    "previous_total_low": 0.0,
    "next_operand": 0.0,
    "next_operand_low": 0.0,
    "total_read_effect": 0.0,
    "total_read_low": 0.0,
    "operand_read_effect": 0.0,
    "operand_read_low": 0.0,
}
NEEDED = {"ablation_effect": 0.3, "ablation_low": 0.05, "ablation_high": 0.4, "ablation_p": 0.05}
TOTAL = {**NEEDED, "total_read_effect": 0.3, "total_read_low": 0.05}
OPERAND = {**NEEDED, "operand_read_effect": 0.3, "operand_read_low": 0.05}
BOTH = {**TOTAL, **OPERAND}


@pytest.mark.parametrize(
    ("label", "evidence"),
    [
        ("inert", {}),
        ("total reader", {**TOTAL, "previous_total_low": 0.5}),
        ("operand reader", {**OPERAND, "next_operand_low": 0.5}),
        ("iteration head", {**BOTH, "previous_total_low": 0.25, "next_operand_low": 0.6}),
        ("iteration head", {**BOTH, "previous_total_low": 0.25, "next_operand_low": 0.25}),
        ("operand reader", {**OPERAND, "previous_total_low": 0.25, "next_operand_low": 0.6}),
        ("total reader", {**BOTH, "previous_total_low": 0.5, "next_operand_low": 0.24}),
        ("mixed", {**BOTH, "previous_total_low": 0.49, "next_operand_low": 0.24}),
        ("mixed", {**BOTH, "previous_total": 0.9, "previous_total_low": 0.49}),
        ("mixed", {**OPERAND, "previous_total_low": 1.0}),
        ("mixed", {**TOTAL, "total_read_low": 0.04, "previous_total_low": 1.0}),
        ("mixed", {**TOTAL, "ablation_low": 0.04, "previous_total_low": 1.0}),
        ("mixed", {**TOTAL, "ablation_p": 0.051, "previous_total_low": 1.0}),
        ("answer writer", {**NEEDED, "attribution_share": 0.2, "attribution_low": 0.1}),
        ("mixed", {**NEEDED, "attribution_share": 0.2, "attribution_low": 0.09}),
        ("mixed", {**NEEDED}),
        ("mixed", {"ablation_effect": -0.3, "ablation_low": -0.4, "ablation_high": -0.2}),
        ("mixed", {"attribution_high": 0.06}),
        ("undetermined", {**TOTAL, "previous_total_low": 1.0, "clean_low": 0.0009}),
        ("undetermined", {**TOTAL, "previous_total_low": 1.0, "prefers_answer": 0.74}),
        ("total reader", {**TOTAL, "previous_total_low": 1.0, "prefers_answer": 0.75}),
        ("undecided", {**TOTAL, "previous_total_low": 1.0, "n": 7.0}),
        ("undecided", {"n": 2.0, "clean_low": 0.0}),
        ("undecided", {**TOTAL, "previous_total_low": 1.0, "n_used": 7.0}),
        ("undetermined", {"n_used": 0.0, "clean_low": 0.0}),
    ],
)
def test_labels_at_their_thresholds(label, evidence):
    assert label_head({**NOTHING, **evidence}) == label


LOOKS = ("previous_total_low", "next_operand_low")


@pytest.mark.parametrize("attention", [LOOKS[:1], LOOKS[1:], LOOKS])
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
        label_head(NOTHING, [LabelRule("never", "", (LabelCondition("clean_low", "<", 0.0),))])


def test_the_text_names_every_rule_threshold_and_measure():
    text = rule_text()
    for rule in HEAD_LABELS:
        assert str(rule) in text
    assert "total reader: previous_total_low >= 0.5 and ablation_low >= 0.05 and ablation_p <= 0.05 and" in text
    assert all(f"{measure}: " in text for measure in MEASURES)
    (reader,) = (rule for rule in HEAD_LABELS if rule.label == "total reader")
    stricter = replace(reader, conditions=(LabelCondition("previous_total_low", ">=", 0.9),))
    assert "total reader: previous_total_low >= 0.9 (" in rule_text([stricter])


def test_readers_are_labels_that_exist():
    assert {rule.label for rule in HEAD_LABELS} >= READER_LABELS


CLEAN = torch.tensor([1.0, 2.0, 3.0])


def scores(rows, attention, chance):
    """Two heads, three examples with one destination of every target in each; attention and chance per row."""
    spread = torch.tensor(attention)[:, None, :, None].expand(len(rows), 1, 2, 3)
    return ReadScores(
        reads=("previous_total", "next_operand"),
        rows=tuple(rows),
        attention=spread,
        peaked=torch.zeros_like(spread),
        chance=torch.tensor(chance)[:, None].expand(len(rows), 3),
        n_dest=torch.ones(len(rows), 3, dtype=torch.long),
    )


def test_a_head_looks_above_chance():
    """(0.6 - 0.2) / 0.8 = 0.5, although the raw score of the same head where chance is 0.5 is higher, 0.7: 0.4."""
    found = scores([("previous_total", "total 3"), ("next_operand", "total 3")], [[0.6, 0.2], [0.7, 0.75]], [0.2, 0.5])
    assert attention_above_chance(found, "previous_total").mean(axis=1).tolist() == pytest.approx([0.5, 0.0])
    assert attention_above_chance(found, "next_operand").mean(axis=1).tolist() == pytest.approx([0.4, 0.5])
    np.testing.assert_allclose(found.above_chance("previous_total").flatten(), [0.5, 0.0], atol=1e-6)


def test_a_read_that_the_readout_does_not_make_says_nothing():
    found = scores([("previous_total", "total 3")], [[0.6, 0.2]], [0.2])
    assert attention_above_chance(found, "next_operand").shape == (2, 0)


def test_evidence_puts_the_numbers_of_each_head_together():
    found = scores([("previous_total", "a"), ("next_operand", "a")], [[0.75, 0.0], [0.25, 0.5]], [0.0, 0.0])
    lost = torch.stack([CLEAN / 2, torch.zeros(3)])
    direct, unread = torch.stack([CLEAN / 4, CLEAN]), torch.full((2, 3), torch.nan)
    used = {"previous_total": torch.stack([CLEAN / 10, unread[0]]), "next_operand": unread}
    first, second = head_evidence(CLEAN, direct, lost, found, used)
    assert first["ablation_effect"] == pytest.approx(0.5)
    assert first["attribution_share"] == pytest.approx(0.25)
    assert (first["previous_total"], first["next_operand"]) == pytest.approx((0.75, 0.25))
    assert (second["previous_total"], second["next_operand"]) == pytest.approx((0.0, 0.5))
    together = max_statistic(np.array([[0.25, 0.5, 0.75], [0.0, 0.0, 0.0]]))
    assert (first["ablation_low"], first["ablation_high"]) == pytest.approx((together.low[0], together.high[0]))
    assert (first["ablation_p"], second["ablation_p"]) == (0.25, 1.0)
    assert first["total_read_effect"] == pytest.approx(0.1)
    assert np.isnan([second["total_read_effect"], first["operand_read_low"]]).all()
    assert first["clean_low"] == pytest.approx(1.0)
    assert first["prefers_answer"] == 1.0
    assert (first["n"], first["n_used"]) == (3, 3)
    swapped = torch.tensor([1.0, -1.0, -1.0]) * CLEAN
    assert head_evidence(swapped, direct, lost, found, used)[0]["prefers_answer"] == pytest.approx(1 / 3)
    assert (second["ablation_low"], second["ablation_effect"], second["ablation_high"]) == (0, 0, 0)
    assert second["attribution_share"] == pytest.approx(1.0)


def test_heads_that_look_as_much_as_one_that_divides_its_attention_are_asked_for_their_use():
    found = scores([("previous_total", "a")], [[0.25, 0.24]], [0.0])
    assert heads_that_look(found, "previous_total") == [0]
    assert heads_that_look(found, "next_operand") == []
