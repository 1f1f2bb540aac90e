from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.mechanism.patching.attribution_patching import attribution_patch
from cotinterp.mechanism.patching.sweep import patch_sweep
from tests.mechanism.contrasts import replaced, told_apart

SITES = {"kinds": ("resid_pre", "attn_out", "mlp_out"), "heads": True}


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny()


@pytest.fixture(scope="module")
def contrast(model):
    tokens = torch.randint(0, 13, (8, 8), generator=torch.Generator().manual_seed(1))
    return told_apart(model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((8,), 6))


@pytest.fixture(scope="module")
def estimated(model, contrast):
    return attribution_patch(model, contrast, labels={"task": "none", "run_seed": 3}, **SITES)


@pytest.fixture(scope="module")
def true(model, contrast):
    return patch_sweep(model, contrast, metrics=("logit_diff", "kl"), **SITES)


def test_the_table_has_the_format_of_patching(estimated, true):
    frame, other = estimated.frame(), true.frame()
    assert list(frame.columns) == list(other.columns)
    assert frame["site"].tolist()[:3] == ["self", "full", "random_donor"]
    cells = other[(other["metric"] == "logit_diff") & (other["role"] != "all")]
    address = ["site", "layer", "role", "step"]
    assert frame[address].iloc[3:].values.tolist() == cells[address].values.tolist()
    assert frame["effect"].iloc[3:].tolist() == estimated.effects().effect.tolist()
    assert frame["effect"].iloc[0] == 0.0
    assert frame["effect"].iloc[1] not in (0.0, 1.0)
    assert (frame["ci_low"] <= frame["effect"]).all()


def test_agreement_with_the_truth_it_estimates(estimated, true):
    agreement = estimated.agreement(true)
    table = agreement.frame()
    assert table["sites"].tolist() == ["all sites", "resid_pre", "attn_out", "mlp_out", "z of heads"]
    assert table.loc[0, ["task", "run_seed", "metric", "direction", "pair", "steps"]].tolist() == [
        "none", 3, "logit_diff", "denoise", "pair", 1,
    ]  # fmt: skip
    difference = np.abs(estimated.effects().effect - true.effects().effect)
    assert table.loc[0, "max_difference"] == pytest.approx(difference.max())
    assert table.loc[0, "spearman"] > 0.8
    assert table.loc[0, "n"] + table.loc[0, "left_out"] == len(true.cells)


def test_scores_at_the_wrong_sites_do_not_agree(estimated, true):
    """Scores of other cells, as after an off-by-one in places: the correlation shows it."""
    rolled = np.roll(estimated.measured.changes["logit_diff"], 1, axis=0)
    wrong = replace(estimated, measured=replace(estimated.measured, changes={"logit_diff": rolled}))
    right = estimated.agreement(true).frame()["spearman"][0]
    assert wrong.agreement(true).frame()["spearman"][0] < right - 0.3


def test_only_the_same_question_is_compared(model, contrast, estimated, true):
    with pytest.raises(ValueError, match="'direction': 'noise'"):
        estimated.agreement(replace(true, direction="noise"))
    with pytest.raises(ValueError, match="the gaps differ"):
        estimated.agreement(patch_sweep(model, contrast.select(slice(0, 4)), metrics=("logit_diff",)))
    with pytest.raises(ValueError, match="log_prob was not patched, only"):
        attribution_patch(model, contrast, metric="log_prob").agreement(true)
    with pytest.raises(ValueError, match="no cell in common"):
        attribution_patch(model, contrast, kinds=("resid_post",)).agreement(true)


def test_a_part_of_the_cells_can_be_compared(model, contrast, true):
    some = attribution_patch(model, contrast, kinds=("mlp_out", "resid_post")).agreement(true)
    assert some.frame()["sites"].tolist() == ["all sites", "mlp_out"]


def test_the_figure_says_what_it_is(estimated, model, contrast):
    figure = estimated.figure()
    drawn = np.concatenate([np.ravel(trace.z) for trace in figure.data if trace.type == "heatmap"])
    np.testing.assert_allclose(np.sort(drawn[np.isfinite(drawn)]), np.sort(estimated.effects().effect))
    title = figure.layout.title.text.replace("<br>", " ")
    assert "estimated from gradients at the recipient" in title
    assert "agreement with true patching" in title
    several = attribution_patch(model, contrast, kinds=("mlp_out",), steps=2).figure()
    assert "averaged over 2 steps" in several.layout.title.text.replace("<br>", " ")
