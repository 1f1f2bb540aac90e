"""Heads ablated alone, in sets and by each method: by hand on a head whose work is known, and what is exactly zero."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.ablation import AblationResult, JointAblation, ablate_heads, compare_ablations
from cotinterp.mechanism.heads.losses import Draws
from cotinterp.mechanism.interventions import NO_DONOR
from cotinterp.mechanism.sites import Site, head_sites
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.pairs import operand_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import asked
from tests.mechanism.copier import BIAS, previous_token_copier

COPIER, IDLE = Site("z", 0, 0), Site("z", 0, 1)
TOKENS = torch.tensor([[2, 5, 0], [3, 6, 0], [4, 7, 0]])
CONTRAST = asked(
    clean=TOKENS,
    at=torch.tensor([2, 2, 2]),
    answer=torch.tensor([5, 6, 7]),
    foil=torch.tensor([6, 5, 5]),
)


def lost(model, heads, donors):
    return ablate_heads(model, CONTRAST, [heads], np.array(donors))[0].tolist()


def test_what_the_copier_loses_by_hand(make_tiny):
    """Its answer always has 3 more than the foil. The donor's token may be the foil (6 lost) or neither (3 lost)."""
    model = previous_token_copier(make_tiny)
    assert lost(model, [COPIER], [[1, 0, 0]]) == [6.0, 6.0, 6.0]
    assert lost(model, [COPIER], [[2, 2, 1]]) == [3.0, 3.0, 3.0]


def test_draws_are_averaged(make_tiny):
    model = previous_token_copier(make_tiny)
    assert lost(model, [COPIER], [[1, 0, 0], [2, 2, 1]]) == [4.5, 4.5, 4.5]


def test_a_head_that_writes_nothing_loses_exactly_nothing(make_tiny, tokens):
    assert lost(previous_token_copier(make_tiny), [IDLE], [[1, 2, 0]]) == [0.0, 0.0, 0.0]
    model = make_tiny()
    with torch.no_grad():
        model.original_model.layers[0].attn.o.weight[:, 4:8] = 0
    contrast = asked(clean=tokens, at=torch.full((5,), 7), answer=torch.arange(1, 6), foil=torch.arange(6, 11))
    donors = np.array([[1, 2, 3, 4, 0]])
    without, other = ablate_heads(model, contrast, [[Site("z", 0, 1)], [Site("z", 0, 2)]], donors)
    assert torch.equal(without, torch.zeros(5))
    assert other.abs().min() > 1e-4


def test_giving_each_example_its_own_loses_exactly_nothing(tiny_model, tokens):
    contrast = asked(
        clean=tokens, at=torch.tensor([7, 3, 5, 7, 0]), answer=torch.arange(1, 6), foil=torch.arange(6, 11)
    )
    heads = [[site] for site in head_sites(tiny_model)] + [list(head_sites(tiny_model))]
    found = ablate_heads(tiny_model, contrast, heads, np.arange(5)[None])
    assert torch.equal(found, torch.zeros(9, 5))


@pytest.mark.parametrize("attention_dir", ["causal", "bidirectional"])
def test_all_heads_of_an_attention_only_model_give_the_donors_attention(make_tiny, tokens, attention_dir):
    """One layer, no norm: logits = unembed(embedding + attention), so what is lost is the attention's difference.

    Read in the middle: what stands behind it reaches the readout of a bidirectional model alone.
    """
    model = make_tiny(n_layers=1, attn_only=True, normalization_type=None, attention_dir=attention_dir)
    contrast = asked(clean=tokens, at=torch.full((5,), 3), answer=torch.arange(1, 6), foil=torch.arange(6, 11))
    donors = torch.tensor([1, 2, 3, 4, 0])
    _, cache = model.run_with_cache(tokens)
    attention = cache["blocks.0.hook_attn_out"][:, 3]
    direction = (model.W_U[:, contrast.answer] - model.W_U[:, contrast.foil]).T
    by_hand = ((attention - attention[donors]) * direction).sum(-1).detach()
    found = ablate_heads(model, contrast, [head_sites(model)], donors.numpy()[None])[0]
    torch.testing.assert_close(found, by_hand, atol=1e-4, rtol=1e-4)


def test_examples_without_a_donor_are_nan_and_the_others_unmoved_by_that(make_tiny):
    found = lost(previous_token_copier(make_tiny), [COPIER], [[1, 0, NO_DONOR]])
    assert found[:2] == [6.0, 6.0]
    assert np.isnan(found[2])


def test_pieces_give_the_same(tiny_model, tokens):
    contrast = asked(
        clean=tokens, at=torch.tensor([7, 3, 5, 7, 0]), answer=torch.arange(1, 6), foil=torch.arange(6, 11)
    )
    donors = np.array([[1, 2, 3, 4, 0], [2, 3, 4, 0, 1]])
    whole = ablate_heads(tiny_model, contrast, [[Site("z", 0, 0)]], donors)
    pieces = ablate_heads(tiny_model, contrast, [[Site("z", 0, 0)]], donors, batch_size=2)
    torch.testing.assert_close(whole, pieces, atol=1e-5, rtol=1e-4)


def test_only_heads_can_be_ablated_here(tiny_model):
    with pytest.raises(ValueError, match=r"at their z, as Site\('z', layer, head\); got \['L0.mlp_out', 'L1.z'\]"):
        ablate_heads(tiny_model, CONTRAST, [[Site("mlp_out", 0)], [Site("z", 1)]], np.array([[1, 0, 0]]))


@pytest.fixture
def question():
    """Totals 2 to 7, each four times, foil 0 (never written): the copier's difference is 3."""
    totals = torch.arange(2, 8).repeat(4)
    tokens = torch.stack([totals, totals, torch.zeros_like(totals)], dim=1)
    return asked(clean=tokens, at=torch.full((24,), 2), answer=totals, foil=torch.zeros_like(totals))


@pytest.fixture
def model(make_tiny):
    """Beside the copier, a head whose values are one constant that lowers the foil by 2 wherever it looks."""
    found = previous_token_copier(make_tiny)
    with torch.no_grad():
        attn = found.original_model.layers[0].attn
        attn.v.bias[8] = 1.0
        attn.o.weight[16, 8] = -2.0
    return found


def test_what_each_method_takes_away_by_hand(model, question):
    """Clean 5 = 3 + 2. Mean of six equally frequent totals: 3 - 3/6 lost. Zero: 3, and the constant 2 of the other."""
    result = compare_ablations(model, question)
    assert result.clean.tolist() == pytest.approx([5.0] * 24)
    effect = result.frame().pivot(index="site", columns="method", values="effect")
    assert effect.loc["L0H0.z", "zero"] == pytest.approx(3 / 5)
    assert effect.loc["L0H0.z", "mean"] == pytest.approx(2.5 / 5)
    assert 0 < effect.loc["L0H0.z", "resample"] <= 3 / 5 + 1e-6
    assert effect.loc["L0H1.z", "zero"] == pytest.approx(2 / 5)
    assert effect.loc["L0H1.z", ["mean", "resample"]].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_verdicts_that_depend_on_the_method_are_flagged(model, question):
    table = compare_ablations(model, question).frame().set_index(["site", "method"])
    assert table["needed"].to_dict() == {
        ("L0H0.z", "resample"): True,
        ("L0H0.z", "mean"): True,
        ("L0H0.z", "zero"): True,
        ("L0H1.z", "resample"): False,
        ("L0H1.z", "mean"): False,
        ("L0H1.z", "zero"): True,
    }
    assert not table.loc["L0H0.z", "methods_differ"].any()
    assert table.loc["L0H1.z", "methods_differ"].all()
    assert not table["harmful"].any()


def test_a_head_that_speaks_for_the_foil_is_harmful(model, question):
    turned = asked(clean=question.clean, at=question.at, answer=torch.full((24,), 1), foil=question.answer)
    with torch.no_grad():
        model.original_model.layers[0].attn.o.bias[16 + 1] = BIAS + 10
    table = compare_ablations(model, turned, [[COPIER]], methods=["zero"]).frame()
    assert table["harmful"].tolist() == [True]
    assert table["effect"].iloc[0] == pytest.approx(-3 / 7.5)


def test_sets_are_ablated_together_and_methods_ranked_against_each_other(model, question):
    sets = [[COPIER], [IDLE], [COPIER, IDLE]]
    result = compare_ablations(model, question, sets, methods=["mean", "zero"], labels={"run_seed": 3})
    zero = result.lost[1].mean(dim=1)
    assert zero.tolist() == pytest.approx([3, 2, 5])
    agreement = result.agreement()
    assert agreement[["method", "other", "n_differ", "n_sets", "run_seed"]].to_dict("records") == [
        {"method": "mean", "other": "zero", "n_differ": 1, "n_sets": 3, "run_seed": 3}
    ]
    assert result.frame()["site"].unique().tolist() == ["L0H0.z", "L0H1.z", "L0H0.z L0H1.z"]


def test_rank_agreement_by_hand():
    sets = tuple((Site("z", 0, head),) for head in range(4))
    rows = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0], [4.0, 3.0, 2.0, 1.0]])
    result = AblationResult(sets, ("resample", "mean", "zero"), rows[:, :, None].expand(-1, -1, 8), torch.ones(8))
    found = result.agreement().set_index(["method", "other"])["spearman"]
    assert found.to_dict() == pytest.approx(
        {("resample", "mean"): 0.8, ("resample", "zero"): -1.0, ("mean", "zero"): -0.8}
    )
    few = AblationResult(sets[:2], ("mean", "zero"), rows[:2, :2, None].expand(-1, -1, 8), torch.ones(8))
    assert few.agreement()["spearman"].isna().all()


def test_a_mean_is_that_of_the_template_and_examples_without_a_companion_are_left_out(make_tiny, question):
    """Two templates whose totals differ: within each the mean is its only total, and nothing is lost."""
    totals = torch.tensor([2, 2, 2, 5, 5, 5, 7])
    tokens = torch.stack([totals, totals, torch.zeros_like(totals)], dim=1)
    contrast = asked(clean=tokens, at=torch.full((7,), 2), answer=totals, foil=torch.zeros_like(totals))
    groups = np.array([0, 0, 0, 1, 1, 1, 2])
    result = compare_ablations(previous_token_copier(make_tiny), replace(contrast, templates=groups))
    assert result.lost[:2, 0, :6].abs().max() < 1e-6
    assert result.lost[2, 0, :6].tolist() == pytest.approx([3.0] * 6)
    assert result.lost[..., 6].isnan().all()
    assert set(result.frame()["n"]) == {6}


def test_pairs_know_their_templates(make_tiny):
    """The totals 17 and 24 take two characters: that transcript has no companion."""
    task = get_task("digit-sum")
    pairs = operand_pairs(
        task, solve(task, np.array([[1, 2, 3], [2, 3, 1], [9, 8, 7]])), "totals", index=1, rng=np.random.default_rng(0)
    )
    model = make_tiny(d_vocab=len(Vocabulary.of(task)), n_ctx=48)
    result = compare_ablations(model, Contrast.from_pairs(pairs), [[COPIER]], draws=Draws(n_donors=1))
    assert result.lost.isnan().all(dim=0)[0].tolist() == [False, False, True]
    assert len(result.figure().data) >= 1


def test_nothing_to_ablate_is_refused(model, question):
    with pytest.raises(ValueError, match="0 sets of heads, 3 methods"):
        compare_ablations(model, question, [])
    with pytest.raises(ValueError, match="named twice"):
        compare_ablations(model, question, [[COPIER], COPIER])
    with pytest.raises(ValueError, match="L0H2.z is outside the model: its z has heads 0 to 1"):
        compare_ablations(model, question, [Site("z", 0, 2)])


CLEAN = torch.tensor([4.0, 2.0, 3.0])


@pytest.fixture
def joint():
    """Two heads that stand in for one another: each alone costs nothing, both cost two thirds."""
    return JointAblation(
        readers=(Site("z", 0, 1), Site("z", 1, 0)),
        together=torch.tensor([[3.0, 1.0, 2.0]]),
        summed=torch.zeros(1, 3),
        random=torch.tensor([[0.0, 0.6, 0.3], [0.3, 0.9, 0.6]]),
        clean=CLEAN,
    )


def test_heads_that_stand_in_for_one_another_show_only_together(joint):
    assert joint.effect == pytest.approx(2 / 3)
    assert joint.summed_effect == 0
    assert joint.random_effect == pytest.approx((0.1 + 0.2) / 2)


def test_frame_has_a_row_for_each_ablation(joint):
    frame = joint.frame()
    assert frame["set"].tolist() == ["readers", "sum of single readers", "random set", "random set"]
    assert frame["heads"].tolist() == ["L0H1 L1H0", "L0H1 L1H0", "2 others", "2 others"]
    assert frame["effect"].tolist() == pytest.approx([2 / 3, 0, 0.1, 0.2])
    assert frame["n"].tolist() == [3] * 4
    assert (frame["ci_low"] <= frame["effect"]).all()
    assert (frame["effect"] <= frame["ci_high"] + 1e-12).all()


def test_examples_without_a_donor_are_left_out(joint):
    missing = JointAblation(
        readers=joint.readers,
        together=torch.tensor([[3.0, torch.nan, 2.0]]),
        summed=joint.summed,
        random=joint.random[:0],
        clean=CLEAN,
    )
    assert missing.effect == pytest.approx(2.5 / 3.5)
    assert missing.frame()["n"].tolist() == [2, 3]
    assert np.isnan(missing.random_effect)


def test_nothing_is_lost_without_readers():
    none = torch.zeros(0, 3)
    nobody = JointAblation((), none, none, none, CLEAN)
    assert np.isnan([nobody.effect, nobody.summed_effect, nobody.random_effect]).all()
    assert nobody.frame().empty
