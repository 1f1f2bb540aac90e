"""Handmade models of several seeds: alike in what they do, not in their weights."""

import numpy as np
import pytest
import torch

from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.calibration.ground_truth import (
    handmade_subject,
    handmade_world,
    parallel_draft,
    reader_draft,
    recomputer_draft,
    short_table_draft,
    table_draft,
    untrained_subject,
)

FEW = 20


def rates(subject):
    """Share of right answers by side of the split and number of operands."""
    result = accuracy_by_k(subject.model, subject.task, subject.regime, subject.evaluation_problems(FEW))
    table = result.frame()
    return {(row.split, row.k): row.accuracy for row in table.itertuples()}


@pytest.mark.parametrize(
    ("draft", "regime"),
    [(reader_draft, "cot"), (recomputer_draft, "cot"), (parallel_draft, "direct")],
)
@pytest.mark.parametrize("seed", [0, 3])
def test_with_noise_the_algorithms_are_right_as_before(draft, regime, seed):
    assert min(rates(handmade_subject(draft, "z6", regime, seed)).values()) >= 0.95


@pytest.mark.parametrize("seed", [1])
def test_a_table_knows_its_problems_and_no_other(seed):
    found = rates(handmade_subject(table_draft, "z6", "direct", seed))
    assert [found["train", k] for k in (2, 3, 4)] == [1.0, 1.0, 1.0]
    assert max(found["heldout", k] for k in (2, 3, 4)) < 0.6


def test_the_short_table_knows_all_problems_of_two_operands_and_was_not_taught_the_held_out_ones():
    subject = handmade_subject(short_table_draft, "z6", "direct", 0)
    found = rates(subject)
    assert found["heldout", 2] == 1.0
    assert max(found["heldout", k] for k in (3, 4)) < 0.6
    heldout = {problem.operands for problem in subject.evaluation_problems(FEW)["heldout"]}
    assert not heldout & {problem.operands for problem in subject.trained_on}


def test_seeds_are_different_models_and_the_same_seed_the_same():
    one, same, other = (handmade_subject(table_draft, "z6", "direct", seed) for seed in (0, 0, 1))
    weights = [torch.cat([p.flatten() for p in x.model.parameters()]) for x in (one, same)]
    assert torch.equal(*weights)
    assert set(one.trained_on) == set(same.trained_on) != set(other.trained_on)
    plain, decoy = (handmade_subject(reader_draft, "z6", "cot", seed) for seed in (0, 1))
    assert decoy.model.cfg.d_model > plain.model.cfg.d_model


def test_untrained_models_know_nothing_and_have_another_one_as_their_control():
    subject = untrained_subject("z6", "direct", 0)
    assert max(rates(subject).values()) < 0.6
    first, control = (next(model.parameters()) for model in (subject.model, subject.untrained))
    assert not np.allclose(first.detach().numpy(), control.detach().numpy())


def test_a_world_has_every_regime_at_every_seed():
    subjects = handmade_world({"cot": reader_draft, "direct": table_draft}, seeds=(0, 1))
    assert [(s.regime, s.run_seed) for s in subjects] == [("cot", 0), ("cot", 1), ("direct", 0), ("direct", 1)]
