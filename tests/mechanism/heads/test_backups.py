"""Two heads of which one suffices, and what one writes once the other is gone."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.heads.ablation import ablate_heads
from cotinterp.mechanism.heads.backups import BackupResult, backup_heads, direct_change
from cotinterp.mechanism.heads.losses import Draws
from cotinterp.mechanism.heads.table import head_table
from cotinterp.mechanism.interventions import NO_DONOR
from cotinterp.mechanism.sites import Site, head_sites
from tests.mechanism.contrasts import asked
from tests.mechanism.copier import WRITES, previous_token_copier

N = 24
FIRST, SECOND = Site("z", 0, 0), Site("z", 0, 1)


@pytest.fixture
def contrast():
    """Totals 2 to 7 at position 1, read at position 2; the foil is a token that is never written."""
    totals = torch.arange(2, 8).repeat(N // 6)
    tokens = torch.stack([totals, totals, torch.zeros_like(totals)], dim=1)
    return asked(clean=tokens, at=torch.full((N,), 2), answer=totals, foil=torch.zeros_like(totals))


@pytest.fixture
def redundant(make_tiny):
    """Both heads copy the previous token, and the MLP takes away what exceeds the work of one.

    Neuron t is relu(written_t - WRITES), written back with weight -1: one head or two, the logit of t is WRITES.
    """
    model = previous_token_copier(make_tiny, attn_only=False, act_fn="relu", d_mlp=8)
    with torch.no_grad():
        layer = model.original_model.layers[0]
        for projection in (layer.attn.q, layer.attn.k, layer.attn.v):
            projection.weight[8:] = projection.weight[:8]
        layer.attn.o.weight[:, 8:] = layer.attn.o.weight[:, :8]
        layer.attn.o.bias.zero_()
        into, out = (p for name, p in layer.mlp.named_parameters() if name.endswith("weight"))
        bias = next(p for name, p in layer.mlp.named_parameters() if name.endswith("bias") and len(p) == 8)
        into[:, 16:24] = torch.eye(8)
        bias.fill_(-WRITES)
        out[16:24, :] = -torch.eye(8)
    return model


def test_the_redundant_model_needs_one_head_and_not_which(redundant, contrast):
    found = backup_heads(redundant, contrast, method="zero")
    assert found.clean.tolist() == pytest.approx([WRITES] * N)
    assert found.single.abs().max() < 1e-5
    assert found.together[0].tolist() == pytest.approx([WRITES] * N)


@pytest.mark.parametrize("method", ["resample", "mean", "zero"])
def test_single_ablations_find_nothing_and_the_pair_is_named_backups(redundant, contrast, method):
    row = backup_heads(redundant, contrast, method=method, draws=Draws(n_donors=4)).frame().iloc[0]
    assert row[["first_alone", "second_alone"]].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert row["interaction"] == pytest.approx(row["together"] - row["first_alone"] - row["second_alone"])
    assert row["interaction"] > 0.5
    assert row["p"] < 0.05
    assert row["verdict"] == "backups"
    assert row["repair"] == 0


def test_the_joint_table_of_heads_finds_readers_that_no_single_ablation_finds(redundant, contrast):
    mask = torch.zeros(N, 3, 3, dtype=torch.bool)
    mask[:, 2, 1] = True
    result = head_table(redundant, contrast, {"previous_total": {"answer": mask}})
    assert set(result.head_labels).isdisjoint({"total reader", "iteration head"})
    assert result.flagged() == ()
    looking = result.joint_frame().set_index(["group", "set"])
    together = looking.loc[("look at previous_total", "readers")]
    assert together["heads"] == "L0H0 L0H1"
    assert together["effect"] > 0.5
    assert together["p"] < 0.05
    assert abs(looking.loc[("look at previous_total", "sum of single readers"), "effect"]) < 0.05


def test_heads_that_each_do_half_the_work_are_no_backups(make_tiny, contrast):
    model = previous_token_copier(make_tiny)
    with torch.no_grad():
        attn = model.original_model.layers[0].attn
        for projection in (attn.q, attn.k, attn.v):
            projection.weight[8:] = projection.weight[:8]
        attn.o.weight[:, :8] /= 2
        attn.o.weight[:, 8:] = attn.o.weight[:, :8]
        attn.o.bias.zero_()
    row = backup_heads(model, contrast, method="zero").frame().iloc[0]
    assert (row["first_alone"], row["together"]) == pytest.approx((0.5, 1.0))
    assert row["verdict"] == "neither"


def by_hand(interaction):
    single = torch.ones(2, 12)
    noise = torch.linspace(-0.1, 0.1, 12)
    together = (2.0 + interaction + noise)[None]
    return BackupResult((FIRST, SECOND), ((0, 1),), single, together, torch.zeros(1, 12), torch.full((12,), 4.0))


def test_verdicts_by_hand():
    assert by_hand(1.0).frame()["verdict"].tolist() == ["backups"]
    assert by_hand(1.0).backups() == ((FIRST, SECOND),)
    assert by_hand(-1.0).frame()["verdict"].tolist() == ["in series"]
    assert by_hand(0.0).frame()["verdict"].tolist() == ["neither"]
    assert by_hand(0.15).frame()["verdict"].tolist() == ["neither"]
    assert by_hand(0.0).backups() == ()
    assert by_hand(1.0).frame()["interaction"].item() == pytest.approx(0.25)


def test_the_figure_is_symmetric():
    cells = next(trace for trace in by_hand(1.0).figure().data if trace.name != "no value")
    assert list(cells.x) == list(cells.y) == ["L0H0.z", "L0H1.z"]
    assert cells.z[0, 1] == cells.z[1, 0] == pytest.approx(0.25)
    assert np.isnan(cells.z[0, 0])


def test_one_head_makes_no_pair(redundant, contrast):
    with pytest.raises(ValueError, match=r"at least two different heads, got \['L0H0.z'\]"):
        backup_heads(redundant, contrast, [FIRST])


def test_without_norm_and_mlp_the_changes_of_direct_attribution_are_the_whole_loss(make_tiny, tokens):
    """The logit difference is then the sum of what is written directly: loss = - sum over heads of their changes."""
    model = make_tiny(attn_only=True, normalization_type=None)
    question = asked(
        clean=tokens, at=torch.tensor([7, 3, 5, 7, 2]), answer=torch.arange(1, 6), foil=torch.arange(6, 11)
    )
    donors = np.array([[1, 2, 3, 4, 0], [2, 3, 4, 0, 1]])
    heads = head_sites(model)
    change = direct_change(model, question, heads, donors)
    lost = ablate_heads(model, question, [[site] for site in heads], donors)
    torch.testing.assert_close(-change.sum(dim=1), lost, atol=1e-3, rtol=1e-3)
    assert change[4:, :4].abs().max() < 1e-5
    assert change[0, 4:].abs().min() > 0
    assert (change[0, 1:4] == 0).all()


@pytest.mark.parametrize("method", ["resample", "mean", "zero"])
def test_pieces_and_missing_donors(tiny_model, tokens, method):
    question = asked(clean=tokens, at=torch.full((5,), 7), answer=torch.arange(1, 6), foil=torch.arange(6, 11))
    donors, heads = np.array([[1, 2, 3, 0, NO_DONOR]]), [Site("z", 0, 1), Site("z", 1, 2)]
    whole = direct_change(tiny_model, question, heads, donors, method=method)
    torch.testing.assert_close(
        direct_change(tiny_model, question, heads, donors, method=method, batch_size=3), whole, equal_nan=True
    )
    assert whole[..., 4].isnan().all()
    assert whole[0, 1, :4].abs().min() > 0
    assert whole[1, 0, :4].abs().max() == 0
