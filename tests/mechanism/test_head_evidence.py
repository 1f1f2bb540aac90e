"""Shares of the logit difference, their intervals, and the target at which a head looks most, by hand."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.head_evidence import head_evidence, intervals, looks, relative
from cotinterp.mechanism.read_scores import ReadScores
from cotinterp.results import bootstrap

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


def test_intervals_are_those_of_the_bootstrap_and_widen_with_the_number_of_tests():
    values = np.random.default_rng(0).normal(size=(2, 40))
    one, many = intervals(values), intervals(values, n_tests=16)
    low, high = bootstrap(values[1], n_resamples=10_000)
    assert (one.low[1], one.high[1]) == pytest.approx((low, high))
    low, high = bootstrap(values[1], n_resamples=10_000, level=1 - 0.05 / 16)
    assert (many.low[1], many.high[1]) == pytest.approx((low, high))
    assert (many.low < one.low).all()
    assert (many.high > one.high).all()
    assert np.isnan(intervals(np.full((2, 3), np.nan)).low).all()


def test_a_head_looks_above_chance_before_the_target_that_was_named():
    """Before a: (0.6 - 0.2) / 0.8 = 0.5, although before b its raw score is higher, (0.7 - 0.5) / 0.5 = 0.4."""
    found = scores([("previous_total", "a"), ("previous_total", "b")], [[0.6, 0.2], [0.7, 0.75]], [0.2, 0.5])
    assert looks(found, "previous_total", "a").tolist() == pytest.approx([0.5, 0.0])
    assert looks(found, "previous_total", "b").tolist() == pytest.approx([0.4, 0.5])
    assert looks(found, "previous_total", "all").tolist() == pytest.approx([0.3 / 0.65, 0.125 / 0.65])


def test_a_read_without_the_target_says_nothing():
    found = scores([("previous_total", "a")], [[0.6, 0.2]], [0.2])
    assert looks(found, "previous_total", "answer").isnan().all()
    assert looks(found, "next_operand", "a").isnan().all()
    assert looks(found, "next_operand", "all").isnan().all()


def test_evidence_puts_the_numbers_of_each_head_together():
    found = scores([("previous_total", "a"), ("next_operand", "a")], [[0.75, 0.0], [0.25, 0.5]], [0.0, 0.0])
    lost = torch.stack([CLEAN / 2, torch.zeros(3)])
    first, second = head_evidence(CLEAN, torch.stack([CLEAN / 4, CLEAN]), lost, found, "a")
    assert first["ablation_effect"] == pytest.approx(0.5)
    assert first["attribution_share"] == pytest.approx(0.25)
    assert (first["previous_total"], first["next_operand"]) == pytest.approx((0.75, 0.25))
    assert (second["previous_total"], second["next_operand"]) == pytest.approx((0.0, 0.5))
    assert first["ablation_low"] == pytest.approx(0.25)
    assert first["ablation_high"] == pytest.approx(0.75)
    assert first["clean_low"] == pytest.approx(1.0)
    assert first["prefers_answer"] == 1.0
    swapped = torch.tensor([1.0, -1.0, -1.0]) * CLEAN
    assert head_evidence(swapped, CLEAN[None] / 4, CLEAN[None] / 2, found, "a")[0]["prefers_answer"] == pytest.approx(
        1 / 3
    )
    assert (second["ablation_low"], second["ablation_effect"], second["ablation_high"]) == (0, 0, 0)
    assert second["attribution_share"] == pytest.approx(1.0)
