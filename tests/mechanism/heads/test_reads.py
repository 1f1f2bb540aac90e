"""Where a reader of the chain would look, worked out by hand on transcripts of every regime."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.reads import (
    EARLIER_OPERANDS_READ,
    FINAL_TOTAL_READ,
    KNOCK_OUT_READS,
    NEXT_OPERAND_READ,
    PREVIOUS_TOTAL_READ,
    PROMPT_OPERANDS_READ,
    STALE_TOTAL_READ,
    predicted_at_readout,
    read_masks,
    read_sources,
    role_masks,
    source_masks,
    target_masks,
)
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.pairs import written_total_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import shown

TASK = get_task("digit-sum")
COLUMNS = ("tokens", "role", "step", "part", "value", "scored")


def batch_of(*regimes, operands=(3, 4, 5)):
    problem = solve(TASK, np.array([operands]))[0]
    return collate([render(TASK, problem, regime) for regime in regimes], Vocabulary.of(TASK))


def reads(batch, pattern, row=0):
    """{target: {destination: sources}} of one transcript, as positions."""
    return {
        target: {
            dest: mask[row, dest].nonzero()[:, 0].tolist() for dest in mask[row].any(dim=-1).nonzero()[:, 0].tolist()
        }
        for target, mask in read_masks(batch, pattern).items()
    }


# <3+4+5>{3+4=7;7+5=12}12#
# 0123456789012345678901234
def test_the_previous_total_in_a_chain_of_thought():
    assert reads(batch_of("cot"), PREVIOUS_TOTAL_READ) == {
        "total": {11: [8], 17: [12, 14]},
        "previous_total": {13: [12]},
    }


def test_the_next_operand_in_a_chain_of_thought():
    assert reads(batch_of("cot"), NEXT_OPERAND_READ) == {
        "total": {11: [3, 10], 17: [5, 16]},
        "previous_total": {13: [5]},
        "step_operand": {9: [3], 15: [5]},
    }


# <9+8+5+1>{17;22;23}23#
# 0123456789012345678901
def test_totals_of_two_characters_are_read_whole_and_from_before_their_first():
    batch = batch_of("totals", operands=(9, 8, 5, 1))
    assert reads(batch, PREVIOUS_TOTAL_READ) == {"total": {12: [10, 11], 15: [13, 14]}}
    assert reads(batch, NEXT_OPERAND_READ) == {"total": {9: [3], 12: [5], 15: [7]}}


def test_without_written_totals_there_is_no_previous_one_and_the_answer_reads_all_operands():
    batch = batch_of("direct")
    assert reads(batch, PREVIOUS_TOTAL_READ) == {}
    assert reads(batch, NEXT_OPERAND_READ) == {"answer": {6: [1, 3, 5]}}


def test_each_transcript_of_a_mixed_batch_is_read_by_its_own_roles():
    batch = batch_of("cot", "direct")
    assert reads(batch, PREVIOUS_TOTAL_READ, row=1) == {"total": {}, "previous_total": {}}
    assert reads(batch, NEXT_OPERAND_READ, row=1)["answer"] == {6: [1, 3, 5]}
    assert reads(batch, NEXT_OPERAND_READ, row=0)["answer"] == {}


def test_no_read_looks_ahead_or_at_padding():
    batch = batch_of("cot", "totals", "direct", operands=(9, 8, 5, 1))
    for pattern in (PREVIOUS_TOTAL_READ, NEXT_OPERAND_READ):
        for mask in read_masks(batch, pattern).values():
            assert not mask.triu(diagonal=1).any()
            assert not mask[batch.role == 0].any()


def test_the_last_position_predicts_nothing():
    """A batch that begins with total 1 and ends with operand 1: its end does not predict its beginning."""
    whole = batch_of("totals")
    total, operand = int(whole.where(Role.TOTAL, 1)[0]), int(whole.where(Role.OPERAND, 1)[0])
    columns = {name: getattr(whole, name)[:, [total, operand]] for name in COLUMNS}
    assert read_masks(replace(whole, **columns), NEXT_OPERAND_READ) == {}


def sources(batch, pattern, role, step):
    return read_sources(batch, pattern, role, step)[0].nonzero()[:, 0].tolist()


# <3+4+5+6>{3+4=7;7+5=12;12+6=18}18#
# 01234567890123456789012345678901234
def test_sources_of_one_value_of_a_chain_of_thought():
    batch = batch_of("cot", operands=(3, 4, 5, 6))
    found = {pattern.name: sources(batch, pattern, Role.TOTAL, 3) for pattern in KNOCK_OUT_READS}
    assert found == {
        "previous_total": [20, 21, 23, 24],
        "final_total": [],
        "next_operand": [7, 26],
        "prompt_operands": [1, 3, 5],
    }
    assert sources(batch, EARLIER_OPERANDS_READ, Role.TOTAL, 3) == [1, 3, 5, 12, 18]
    assert sources(batch, STALE_TOTAL_READ, Role.TOTAL, 3) == [14]
    assert sources(batch, STALE_TOTAL_READ, Role.TOTAL, 2) == []
    assert sources(batch, FINAL_TOTAL_READ, Role.ANSWER, 3) == [28, 29]
    assert sources(batch, PROMPT_OPERANDS_READ, Role.PREVIOUS_TOTAL, 2) == [1, 3]


def test_the_answer_of_a_regime_without_totals_has_the_prompt_alone():
    batch = batch_of("direct", operands=(3, 4, 5, 6))
    assert sources(batch, NEXT_OPERAND_READ, Role.ANSWER, 3) == [1, 3, 5, 7]
    assert sources(batch, PROMPT_OPERANDS_READ, Role.ANSWER, 3) == [1, 3, 5]
    assert sources(batch, PREVIOUS_TOTAL_READ, Role.ANSWER, 3) == []
    assert sources(batch_of("direct", "cot"), NEXT_OPERAND_READ, Role.ANSWER, 2) == []


def test_role_masks_cover_every_token_once():
    batch = batch_of("cot", "direct")
    covered = torch.stack(list(role_masks(shown(batch.tokens, batch)).values())).sum(dim=0)
    assert torch.equal(covered, (batch.role != 0).long())


@pytest.mark.parametrize("name", ["expressions-mod11", "pointers"])
def test_steps_that_do_not_follow_the_operands_are_refused(name):
    task = get_task(name)
    problems = solve(task, np.array([[1, 2 + 33, 3 + 22, 4 + 33]]))
    batch = collate([render(task, problem, "cot") for problem in problems], Vocabulary.of(task))
    with pytest.raises(ValueError, match="the reads are those of a left fold"):
        read_masks(batch, PREVIOUS_TOTAL_READ)
    with pytest.raises(ValueError, match="the reads are those of a left fold"):
        read_sources(batch, NEXT_OPERAND_READ, Role.TOTAL, 1)


def test_masks_are_as_wide_as_the_tokens_whatever_was_selected_or_cut():
    """Tokens may be wider than the transcripts that were selected, and end at the readout."""
    pairs = written_total_pairs(
        TASK, solve(TASK, np.array([[3, 4, 5], [1, 2, 3]])), "totals", step=1, rng=np.random.default_rng(0)
    )
    whole = Contrast.from_pairs(pairs)
    wider = replace(
        whole,
        **{name: functional.pad(getattr(whole, name), (0, 3)) for name in ("clean", "corrupted")},
        places={label: functional.pad(mask, (0, 3)) for label, mask in whole.places.items()},
    )
    for contrast in (whole, whole.select(slice(1)), wider, whole.until_readout()):
        n = contrast.clean.shape[1]
        ((before, mask),) = target_masks(contrast, [PREVIOUS_TOTAL_READ])["previous_total"].items()
        assert (before, mask.shape[1:]) == ("total", (n, n))
        assert source_masks(contrast, [PREVIOUS_TOTAL_READ])["previous_total"].shape[1:] == (n,)
        assert predicted_at_readout(contrast) == pairs.readout


def test_a_contrast_that_reads_different_values_has_no_one_readout():
    batch = batch_of("totals", "totals")
    contrast = replace(shown(batch.tokens, batch), at=batch.where(Role.TOTAL, 1) - torch.tensor([1, 0]))
    with pytest.raises(ValueError, match=r"reads out different values in its examples, \['total 1', 'step end 1'\]"):
        predicted_at_readout(contrast)
