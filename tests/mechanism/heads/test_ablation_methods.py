"""A head that knows the problem is needed by every method; one that writes a constant only by zero."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.ablation import AblationResult, compare_ablations
from cotinterp.mechanism.heads.losses import Draws
from cotinterp.mechanism.sites import Site
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.pairs import operand_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import asked
from tests.mechanism.copier import BIAS, previous_token_copier

COPIER, OTHER = Site("z", 0, 0), Site("z", 0, 1)


@pytest.fixture
def told():
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


def test_what_each_method_takes_away_by_hand(model, told):
    """Clean 5 = 3 + 2. Mean of six equally frequent totals: 3 - 3/6 lost. Zero: 3, and the constant 2 of the other."""
    result = compare_ablations(model, told)
    assert result.clean.tolist() == pytest.approx([5.0] * 24)
    effect = result.frame().pivot(index="site", columns="method", values="effect")
    assert effect.loc["L0H0.z", "zero"] == pytest.approx(3 / 5)
    assert effect.loc["L0H0.z", "mean"] == pytest.approx(2.5 / 5)
    assert 0 < effect.loc["L0H0.z", "resample"] <= 3 / 5 + 1e-6
    assert effect.loc["L0H1.z", "zero"] == pytest.approx(2 / 5)
    assert effect.loc["L0H1.z", ["mean", "resample"]].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_verdicts_that_depend_on_the_method_are_flagged(model, told):
    table = compare_ablations(model, told).frame().set_index(["site", "method"])
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


def test_a_head_that_speaks_for_the_foil_is_harmful(model, told):
    turned = asked(clean=told.clean, at=told.at, answer=torch.full((24,), 1), foil=told.answer)
    with torch.no_grad():
        model.original_model.layers[0].attn.o.bias[16 + 1] = BIAS + 10
    table = compare_ablations(model, turned, [[COPIER]], methods=["zero"]).frame()
    assert table["harmful"].tolist() == [True]
    assert table["effect"].iloc[0] == pytest.approx(-3 / 7.5)


def test_sets_are_ablated_together_and_methods_ranked_against_each_other(model, told):
    sets = [[COPIER], [OTHER], [COPIER, OTHER]]
    result = compare_ablations(model, told, sets, methods=["mean", "zero"], labels={"run_seed": 3})
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


def test_a_mean_is_that_of_the_template_and_examples_without_a_companion_are_left_out(make_tiny, told):
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


def test_nothing_to_ablate_is_refused(model, told):
    with pytest.raises(ValueError, match="0 sets of heads, 3 methods"):
        compare_ablations(model, told, [])
    with pytest.raises(ValueError, match="named twice"):
        compare_ablations(model, told, [[COPIER], [COPIER]])
