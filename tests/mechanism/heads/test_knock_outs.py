"""Reads that are needed and reads that are not: which attention is cut, what is lost by it, and the table of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.knock_outs import (
    RANDOM_SOURCES,
    Cuts,
    KnockOut,
    KnockOutResult,
    attention_on,
    knock_out_reads,
    read_cuts,
)
from cotinterp.mechanism.heads.losses import Draws, scan_columns
from cotinterp.mechanism.heads.reads import FINAL_TOTAL_READ, KNOCK_OUT_READS
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import reader, recomputer
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.pairs import operand_pairs, written_total_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.roles import Role
from tests.mechanism.contrasts import asked
from tests.mechanism.copier import previous_token_copier

pytestmark = pytest.mark.slow

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


TOKENS = torch.zeros(2, 6, dtype=torch.long)
AT = torch.tensor([5, 4])


def marked(*positions):
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[:, list(positions)] = True
    return mask


def cut(sources, absent=None, dests=("readout", "everywhere"), seed=0):
    found = read_cuts(sources, absent or {}, AT, TOKENS, dests, np.random.default_rng(seed))
    return {(each.read, each.control, each.dest): each.mask for each in found}


def paths(mask, row):
    return [tuple(path) for path in mask[row].nonzero().tolist()]


def test_the_readout_alone_or_all_that_follow_lose_sight_of_the_sources():
    found = cut({"totals": marked(1, 3)})
    assert paths(found["totals", "", "readout"], 0) == [(5, 1), (5, 3)]
    assert paths(found["totals", "", "readout"], 1) == [(4, 1), (4, 3)]
    assert paths(found["totals", "", "everywhere"], 0) == [(2, 1), (4, 1), (4, 3), (5, 1), (5, 3)]
    assert paths(found["totals", "", "everywhere"], 1) == [(2, 1), (4, 1), (4, 3)]


def test_random_sources_are_as_many_tokens_that_no_read_names_and_that_stand_before_the_readout():
    found = cut({"one": marked(1, 3), "other": marked(0)})
    assert paths(found["one", "random sources", "readout"], 0) == [(5, 2), (5, 4)]
    assert paths(found["one", "random sources", "readout"], 1) == [(4, 2)]
    drawn = {
        tuple(paths(cut({"other": marked(0)}, seed=s)["other", "random sources", "readout"], 0)) for s in range(40)
    }
    assert drawn == {((5, src),) for src in (1, 2, 3, 4)}


def test_absent_reads_are_cut_like_others_and_have_no_random_sources():
    assert list(cut({"one": marked(1)}, {"none": marked(2)}, ["readout"])) == [
        ("one", "", "readout"),
        ("one", "random sources", "readout"),
        ("none", "absent read", "readout"),
    ]


def test_sources_behind_the_readout_are_none():
    with pytest.raises(ValueError, match="read 'late' has no source at or before the readout in 1 of 2 examples"):
        cut({"late": marked(5)})
    with pytest.raises(ValueError, match="no reads to knock out"):
        cut({})


def test_attention_on_a_mask_is_the_mass_per_destination(tiny_model, tokens):
    mask = torch.zeros(5, 8, 8, dtype=torch.bool)
    mask[:, 6, [1, 2]] = mask[:, 7, [1, 2]] = True
    pattern = activations(tiny_model, tokens, [Site("pattern", 1)])[Site("pattern", 1)]
    expected = pattern[:, :, 6:, 1:3].sum(dim=-1).mean(dim=-1)
    found = attention_on(tiny_model, tokens, [mask], batch_size=2)
    torch.testing.assert_close(found[0, 1], expected.T)


def cell(control="", layer=None, head=None, attention=0.5):
    return KnockOut("previous_total", control, "readout", layer, head, "pattern", attention)


CELLS = (cell(), cell(RANDOM_SOURCES), cell(layer=1), cell(layer=1, head=2), cell(layer=0, head=1, attention=0.0))


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    lost = torch.from_numpy(rng.normal(size=(5, 20)) + np.array([[4], [0], [2], [1], [0]])).float()
    lost[4] = 0
    lost[:, 19] = torch.nan
    return KnockOutResult(CELLS, lost, torch.full((20,), 4.0), {"task": "z6"})


def test_a_row_for_each_cut_named_by_its_scope(result):
    frame = result.frame()
    assert frame["scope"].tolist() == ["all", "all", "layer", "head", "head"]
    assert frame["site"].tolist() == ["all", "all", "L1.pattern", "L1H2.pattern", "L0H1.pattern"]
    assert frame["kind"].tolist() == ["all", "all", "pattern", "pattern", "pattern"]
    assert frame[["layer", "head"]].to_numpy().tolist() == [[-1, -1], [-1, -1], [1, -1], [1, 2], [0, 1]]
    assert frame["effect"].to_numpy() == pytest.approx(result.lost[:, :19].mean(dim=1).numpy() / 4, rel=1e-5)
    assert set(frame["n"]) == {19}
    assert frame["task"].eq("z6").all()


def test_heads_layers_and_all_heads_are_three_scans(result):
    frame = result.frame()
    names = ["scan_low", "scan_high", "p"]
    for rows in ([0, 1], [2], [3, 4]):
        expected = scan_columns(result.lost[rows], result.clean)[names].to_numpy()
        np.testing.assert_allclose(frame.loc[rows, names].to_numpy(), expected)
    assert frame.loc[4, ["effect", "scan_low", "scan_high", "p"]].tolist() == [0, 0, 0, 1]


def test_one_effect_by_name(result):
    asked = {"dest": "readout", "method": "pattern"}
    assert result.effect("previous_total", **asked) == pytest.approx(result.frame()["effect"][0])
    assert result.effect("previous_total", **asked, site="L1H2.pattern") == pytest.approx(result.frame()["effect"][3])
    assert result.effect("previous_total", **asked, control=RANDOM_SOURCES) == pytest.approx(
        result.frame()["effect"][1]
    )
    with pytest.raises(KeyError, match="no knock-out .*'site': 'L7.pattern'.*L1H2.pattern"):
        result.effect("previous_total", **asked, site="L7.pattern")


def test_the_figure_shows_the_effects_and_missing_ones_as_missing(result):
    cells = next(trace for trace in result.figure().data if trace.z is not None and trace.name != "no value")
    assert list(cells.x) == ["previous total", "random, as many as previous total"]
    assert cells.z[list(cells.y).index("all"), 0] == pytest.approx(result.frame()["effect"][0])
    assert np.isnan(cells.z[list(cells.y).index("L1.pattern"), 1])
