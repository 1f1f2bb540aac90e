"""Reads that are needed and reads that are not, on models whose mechanism is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.knock_outs import Cuts, knock_out_reads
from cotinterp.mechanism.heads.losses import Draws
from cotinterp.mechanism.heads.reads import FINAL_TOTAL_READ, KNOCK_OUT_READS
from cotinterp.models.handmade import reader, recomputer
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.pairs import operand_pairs, written_total_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.roles import Role
from tests.mechanism.contrasts import asked
from tests.mechanism.copier import previous_token_copier

TASK = get_task("z6")
METHODS = ("pattern", "resample", "mean", "zero")


@pytest.fixture(scope="module")
def problems():
    return solve(TASK, np.unique(np.random.default_rng(0).integers(6, size=(16, 4)), axis=0))


def together(model, pairs, **arguments):
    """Effect by (read, control, method) in all heads at once, cut everywhere."""
    found = knock_out_reads(
        model,
        Contrast.from_pairs(pairs),
        cuts=Cuts(dests=["everywhere"], scopes=["all"], methods=METHODS),
        **arguments,
    )
    return found.frame().set_index(["read", "control", "method"])["effect"]


@pytest.mark.parametrize("regime", ["totals", "cot"])
def test_a_reader_needs_the_previous_total_and_no_earlier_operand(problems, regime):
    readout = (Role.TOTAL, 3)
    pairs = written_total_pairs(TASK, problems, regime, step=2, rng=np.random.default_rng(0), readout=readout)
    effect = together(reader(TASK, regime, decoy=True), pairs)
    assert (effect["previous_total"][""] > 0.8).all()
    assert (effect["next_operand"][""] > 0.8).all()
    assert (effect["prompt_operands"][""] == 0).all()
    assert (effect["stale_total"]["absent read"] == 0).all()
    assert effect["previous_total"]["random sources"]["resample"] == 0


@pytest.mark.parametrize("regime", ["totals", "cot"])
def test_a_recomputer_needs_the_earlier_operands_and_no_total_whatever_its_decoy_looks_at(problems, regime):
    readout = (Role.TOTAL, 3)
    pairs = operand_pairs(TASK, problems, regime, index=1, rng=np.random.default_rng(0), readout=readout)
    effect = together(recomputer(TASK, regime, decoy=True), pairs)
    assert (effect["prompt_operands"][""] > 0.8).all()
    assert (effect["next_operand"][""] > 0.8).all()
    assert (effect["previous_total"][""] == 0).all()
    assert (effect["stale_total"]["absent read"] == 0).all()


def test_the_answer_of_a_reader_is_a_copy_of_the_last_total(problems):
    readout = (Role.ANSWER, 3)
    pairs = written_total_pairs(TASK, problems, "totals", step=3, rng=np.random.default_rng(0), readout=readout)
    effect = together(reader(TASK), pairs)
    assert (effect["final_total"][""] > 0.8).all()
    assert (effect["prompt_operands"][""] == 0).all()
    assert "previous_total" not in effect.index.get_level_values("read")


def test_the_head_that_reads_is_found_among_those_that_do_not(problems):
    readout = (Role.TOTAL, 3)
    pairs = written_total_pairs(TASK, problems, "totals", step=2, rng=np.random.default_rng(0), readout=readout)
    model = reader(TASK, decoy=True)
    result = knock_out_reads(
        model,
        Contrast.from_pairs(pairs),
        KNOCK_OUT_READS[:1],
        cuts=Cuts(dests=["readout"], scopes=["head", "layer"]),
    )
    frame = result.frame()
    real = frame[frame["control"] == ""].set_index(["site", "method"])
    total, decoy = real.loc["L1H0.pattern"], real.loc["L1H2.pattern"]
    assert (total["attention"] > 0.99).all()
    assert (decoy["attention"] > 0.99).all()
    assert (total["effect"] > 0.8).all()
    assert (total["p"] < 0.05).all()
    assert (decoy["effect"] == 0).all()
    assert (decoy["p"] == 1).all()
    np.testing.assert_allclose(real.loc["L1.pattern"]["effect"], total["effect"])
    assert (frame["scope"][frame["control"] == "random sources"] == "layer").all()


@pytest.fixture
def copied(make_tiny):
    """Totals 2, 3, 4 stand before the readout; the copier's answer has 3 more than a foil that is never written."""
    totals = torch.tensor([2, 3, 4, 2, 3, 4])
    tokens = torch.stack([totals.flip(0), totals, torch.zeros(6, dtype=torch.long)], dim=1)
    contrast = asked(clean=tokens, at=torch.full((6,), 2), answer=totals, foil=torch.full((6,), 7))
    previous = torch.zeros(6, 3, dtype=torch.bool)
    previous[:, 1] = True
    return previous_token_copier(make_tiny), contrast, previous


def test_losses_of_the_copier_by_hand(copied):
    """Cut, zeroed: all 3. The mean of totals leaves a third of it. Another's total leaves it only where it is equal."""
    model, contrast, previous = copied
    result = knock_out_reads(
        model,
        contrast,
        {"previous": previous},
        cuts=Cuts(dests=["readout"], scopes=["head"], methods=METHODS),
        draws=Draws(n_donors=1),
    )
    lost = {(cell.head, cell.method): row for cell, row in zip(result.cells, result.lost, strict=True)}
    assert lost[0, "pattern"].tolist() == lost[0, "zero"].tolist() == [3.0] * 6
    assert lost[0, "mean"].tolist() == pytest.approx([2.0] * 6)
    assert set(lost[0, "resample"].tolist()) <= {0.0, 3.0}
    assert lost[0, "resample"].sum() > 0
    assert all((lost[1, method] == 0).all() for method in METHODS)


def test_a_head_that_never_looks_there_loses_exactly_nothing_and_says_so(copied):
    """Its attention on the first token is 0 in float32: there is nothing to cut, which is no mistake of the edit."""
    model, contrast, previous = copied
    result = knock_out_reads(
        model, contrast, {"first": previous.roll(-1, 1)}, cuts=Cuts(scopes=["head"], dests=["readout"])
    )
    frame = result.frame()
    copier = frame[(frame["head"] == 0) & (frame["control"] == "")]
    assert (copier["attention"] == 0).all()
    assert (copier["effect"] == 0).all()
    idle = frame[(frame["head"] == 1) & (frame["control"] == "")]
    assert idle["attention"].tolist() == pytest.approx([1 / 3] * 2)


def test_seeds_pieces_and_missing_donors(copied):
    model, contrast, previous = copied

    def lost(contrast=contrast, **arguments):
        return knock_out_reads(model, contrast, {"previous": previous}, cuts=Cuts(scopes=["all"]), **arguments).lost

    torch.testing.assert_close(lost(batch_size=4), lost())
    assert not torch.equal(lost(draws=Draws(seed=0)), lost(draws=Draws(seed=1)))
    alone = lost(replace(contrast, templates=np.array([0, 0, 0, 0, 0, 1])))
    assert alone[:, 5].isnan().all()
    assert not alone[:, :5].isnan().any()


def test_what_cannot_be_cut_is_refused(copied, problems):
    model, contrast, previous = copied
    with pytest.raises(ValueError, match=r"unknown methods \['noise'\]; known: \['pattern', 'resample'"):
        Cuts(methods=["noise"])
    with pytest.raises(ValueError, match="no scopes"):
        Cuts(scopes=[])
    pairs = operand_pairs(TASK, problems, "direct", index=1, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"none of the reads \['final_total'\] names a source before answer 3"):
        knock_out_reads(model, Contrast.from_pairs(pairs), [FINAL_TOTAL_READ])
