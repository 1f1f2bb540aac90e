"""Shares of the logit difference, their intervals, and the target at which a head looks most, by hand."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.labels import attention_above_chance, head_evidence, heads_that_look
from cotinterp.mechanism.heads.losses import intervals, relative, scan_columns, simultaneous
from cotinterp.mechanism.heads.read_scores import ReadScores
from cotinterp.results import bootstrap
from cotinterp.results.multiplicity import max_statistic

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


def test_what_is_lost_is_a_share_of_the_mean_of_the_same_examples():
    assert relative(torch.tensor([[1.0, 2.0, 6.0]]), CLEAN).tolist() == [[0.5, 1.0, 3.0]]
    assert relative(torch.tensor([[1.0, torch.nan, 6.0]]), torch.tensor([1.0, 90.0, 3.0])).tolist() == [[0.5, 3.0]]


@pytest.mark.parametrize("clean", [[-1.0, -2.0, -3.0], [1.0, -1.0, 0.0]])
def test_a_share_of_nothing_or_less_is_nan(clean):
    assert np.isnan(relative(torch.ones(1, 3), torch.tensor(clean))).all()


def test_intervals_are_those_of_the_bootstrap_each_for_itself():
    values = np.random.default_rng(0).normal(size=(2, 40))
    assert (intervals(values).low[1], intervals(values).high[1]) == pytest.approx(tuple(bootstrap(values[1])))
    assert np.isnan(intervals(np.full((2, 3), np.nan)).low).all()
    assert np.isnan(simultaneous(np.full((2, 3), np.nan)).p).all()


def test_a_scan_over_nothing_finds_something_about_as_often_as_it_says():
    """Of 60 scans over 16 cells of 12 rows, 3 are expected at 5% and more than 8 have a chance of 0.4%."""
    rng = np.random.default_rng(0)
    scans = [simultaneous(rng.normal(size=(16, 12))) for _ in range(60)]
    assert sum(bool((scan.p <= 0.05).any()) for scan in scans) <= 8
    assert sum(bool((scan.low > 0).any() or (scan.high < 0).any()) for scan in scans) <= 8


def test_a_scan_finds_the_row_that_is_not_nothing_and_wider_scans_need_more():
    values = np.random.default_rng(0).normal(size=(16, 40))
    values[3] += 0.75
    alone, among = simultaneous(values[3:4]), simultaneous(values)
    assert among.p.argmin() == 3
    assert alone.p[0] < among.p[3] < 0.05
    assert among.low[3] < alone.low[0] < values[3].mean()


def test_the_columns_of_a_scan_are_shares_with_both_kinds_of_interval():
    values = np.random.default_rng(0).normal(size=(3, 30)) + 1.0
    table = scan_columns(torch.from_numpy(values), torch.full((30,), 2.0))
    assert table["effect"].tolist() == pytest.approx((values.mean(axis=1) / 2).tolist())
    assert (table["scan_low"] < table["ci_low"]).all()
    assert (table["ci_high"] < table["scan_high"]).all()
    assert set(table["n"]) == {30}


def test_a_head_looks_above_chance_before_the_target_that_was_named():
    """Before a: (0.6 - 0.2) / 0.8 = 0.5, although before b its raw score is higher, (0.7 - 0.5) / 0.5 = 0.4."""
    found = scores([("previous_total", "a"), ("previous_total", "b")], [[0.6, 0.2], [0.7, 0.75]], [0.2, 0.5])
    assert attention_above_chance(found, "previous_total", "a").tolist() == pytest.approx([0.5, 0.0])
    assert attention_above_chance(found, "previous_total", "b").tolist() == pytest.approx([0.4, 0.5])
    assert attention_above_chance(found, "previous_total", "all").tolist() == pytest.approx([0.3 / 0.65, 0.125 / 0.65])


def test_a_read_without_the_target_says_nothing():
    found = scores([("previous_total", "a")], [[0.6, 0.2]], [0.2])
    assert attention_above_chance(found, "previous_total", "answer").isnan().all()
    assert attention_above_chance(found, "next_operand", "a").isnan().all()
    assert attention_above_chance(found, "next_operand", "all").isnan().all()


def test_evidence_puts_the_numbers_of_each_head_together():
    found = scores([("previous_total", "a"), ("next_operand", "a")], [[0.75, 0.0], [0.25, 0.5]], [0.0, 0.0])
    lost = torch.stack([CLEAN / 2, torch.zeros(3)])
    direct, unread = torch.stack([CLEAN / 4, CLEAN]), torch.full((2, 3), torch.nan)
    used = {"previous_total": torch.stack([CLEAN / 10, unread[0]]), "next_operand": unread}
    first, second = head_evidence(CLEAN, direct, lost, found, "a", used)
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
    swapped = torch.tensor([1.0, -1.0, -1.0]) * CLEAN
    assert head_evidence(swapped, direct, lost, found, "a", used)[0]["prefers_answer"] == pytest.approx(1 / 3)
    assert (second["ablation_low"], second["ablation_effect"], second["ablation_high"]) == (0, 0, 0)
    assert second["attribution_share"] == pytest.approx(1.0)


def test_heads_that_look_as_much_as_one_that_divides_its_attention_are_asked_for_their_use():
    found = scores([("previous_total", "a")], [[0.25, 0.24]], [0.0])
    assert heads_that_look(found, "previous_total", "a") == [0]
    assert heads_that_look(found, "next_operand", "a") == []
