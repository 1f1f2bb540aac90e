"""Gradient estimates of patching: exact where the model is linear, and compared with the truth where it is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig
from transformer_lens.tools.analysis.attribution_patching import attribution_patch as oracle
from transformers import GPT2Config, GPT2LMHeadModel

from cotinterp.mechanism.activations import Budget, activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import patch, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.patching.attribution_patching import agreement_of, attribution_patch
from cotinterp.mechanism.patching.runs import FIRST, Cell
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.sites import Site
from tests.mechanism.contrasts import ANY_GAP, UNRELATED, contrast_with_gap, replaced

pytestmark = pytest.mark.slow

AT = 6
SITES = {"kinds": ("resid_pre", "attn_out", "mlp_out"), "heads": True}


def contrast_of(model, tokens, changed=(1, 3)):
    return contrast_with_gap(model, tokens, replaced(tokens, list(changed), d_vocab=13), torch.full((5,), AT))


@pytest.fixture
def contrast(tiny_model, tokens):
    return contrast_of(tiny_model, tokens)


@pytest.fixture
def linear(make_tiny):
    """No norm, no MLP, queries of zero: attention looks everywhere evenly, so all is linear in the embeddings."""
    model = make_tiny(normalization_type=None, attn_only=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".q." in name:
                parameter.zero_()
    return model


def scores(result):
    return dict(zip(result.cells, result.measured.changes[result.metrics[0]], strict=True))


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("steps", [1, 3])
def test_on_a_linear_model_every_score_is_the_patch(linear, tokens, direction, steps):
    contrast = contrast_of(linear, tokens)
    options = {"kinds": ("resid_pre", "attn_out", "resid_post"), "heads": True, "direction": direction}
    found = attribution_patch(linear, contrast, steps=steps, **options)
    true = patch_sweep(linear, contrast, metrics=("logit_diff",), **options)
    assert found.cells == true.cells
    expected = true.measured.changes["logit_diff"]
    np.testing.assert_allclose(found.measured.changes["logit_diff"], expected, atol=1e-4)
    assert (np.abs(expected) > 1e-2).mean() > 0.2
    for layer in range(2):
        total = sum(score for cell, score in scores(found).items() if cell.site == Site("resid_pre", layer))
        np.testing.assert_allclose(total, found.measured.gaps["logit_diff"], atol=1e-4)
    assert found.baselines()["full"].effect[0] == pytest.approx(1.0, abs=1e-5)
    assert found.baselines()["self"].effect.tolist() == [0.0]


def test_the_values_are_linear_too_and_the_rest_of_attention_does_nothing_there(linear, tokens):
    contrast = contrast_of(linear, tokens)
    found = scores(attribution_patch(linear, contrast, kinds=(), heads=("q", "k", "v", "pattern")))
    changes = patch_sweep(linear, contrast, kinds=("v",), metrics=("logit_diff",)).measured.changes["logit_diff"]
    for i, place in enumerate(contrast.until_readout().places):
        of_heads = sum(found[Cell(Site("v", 0, head), place)] for head in range(4))
        np.testing.assert_allclose(of_heads, changes[i], atol=1e-4)
        # Keys are multiplied by queries of zero, queries do not change, and so no pattern does.
        for kind in ("q", "k", "pattern"):
            assert not any(found[Cell(Site(kind, 0, head), place)].any() for head in range(4))


def test_scores_are_the_derivative_of_a_small_patch(make_tiny, tokens):
    """Central differences along donor - recipient in float64, for every kind of site of a model that is not linear."""
    model = make_tiny().to(torch.float64)
    contrast = contrast_of(model, tokens)
    kinds = ("resid_pre", "attn_out", "mlp_out", "q", "k", "v", "pattern", "z", "resid_post")
    found = scores(attribution_patch(model, contrast, kinds=kinds))

    def changed(site, mask, by):
        own, donor = (activations(model, side, [site])[site] for side in (contrast.corrupted, contrast.clean))
        logits = run_with(model, contrast.corrupted, [patch(site, own + by * (donor - own), mask)])
        return logit_diff(logits, contrast.at, contrast.answer, contrast.foil).numpy()

    place, mask = f"position {AT}", contrast.places[f"position {AT}"]
    for kind in kinds:
        site = Site(kind, 1)
        slope = (changed(site, mask, 1e-3) - changed(site, mask, -1e-3)) / 2e-3
        np.testing.assert_allclose(found[Cell(site, place)], slope, atol=1e-6)
        assert np.abs(slope).max() > 1e-3, kind


def test_agrees_with_transformer_lens(tiny_model, contrast):
    """Its node attribution scores z of heads and mlp_out, one pair at a time: the largest difference is rounding."""
    found = scores(attribution_patch(tiny_model, contrast, kinds=("mlp_out",), heads=True))
    largest, compared = 0.0, 0
    for row in range(5):
        clean, corrupted = contrast.clean[[row], : AT + 1], contrast.corrupted[[row], : AT + 1]
        answer, foil = contrast.answer[row], contrast.foil[row]
        theirs = oracle(
            tiny_model, clean, corrupted, lambda x, a=answer, f=foil: x[0, AT, a] - x[0, AT, f], EdgeAttributionConfig()
        )
        for node, score in theirs.node_scores.items():
            if node.kind == "embed":
                continue
            site = Site("mlp_out", node.layer) if node.kind == "mlp_out" else Site("z", node.layer, node.head)
            largest = max(largest, abs(found[Cell(site, f"position {node.position}")][row] - score))
            compared += score != 0.0
    assert largest < 1e-5
    assert compared > 100


def test_integrated_gradients_are_complete_at_the_input(tiny_model, contrast):
    """The scores of the first resid_pre tend to the gap as steps grow; one gradient misses it."""
    errors = []
    for steps in (1, 4, 32):
        found = attribution_patch(tiny_model, contrast, kinds=("resid_pre",), steps=steps)
        total = sum(score for cell, score in scores(found).items() if cell.site == FIRST)
        np.testing.assert_allclose(found.baselines()["full"].effect[0] * found.measured.gaps["logit_diff"].mean(),
                                   total.mean(), atol=1e-6)  # fmt: skip
        errors.append(np.abs(total - found.measured.gaps["logit_diff"]).max())
    assert errors[0] > 0.1
    assert errors[1] < errors[0] / 2
    assert errors[2] < 0.01


@pytest.mark.parametrize("requires_grad", [True, False])
def test_the_model_is_left_as_it_was(make_tiny, tokens, requires_grad):
    model = make_tiny().requires_grad_(requires_grad)
    contrast = contrast_of(model, tokens)
    kept = next(model.parameters())
    kept.grad = torch.ones_like(kept) if requires_grad else None
    before = model(tokens).detach()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        found = attribution_patch(model, contrast, steps=2, **SITES)
        assert not torch.is_grad_enabled()
    assert np.abs(found.measured.changes["logit_diff"]).max() > 1e-2
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        assert parameter.requires_grad == requires_grad
        assert torch.equal(parameter, weight)
        assert (parameter.grad is None) == (not requires_grad or parameter is not kept)
    assert torch.equal(model(tokens).detach(), before)
    assert not any(hook.fwd_hooks or hook.bwd_hooks for hook in model.hook_dict.values())
    if requires_grad:
        assert bool((kept.grad == 1).all())


def test_a_model_that_is_not_ours(randomized, tokens):
    config = GPT2Config(n_layer=2, n_head=4, n_embd=16, vocab_size=13, n_positions=16)
    bridge = build_bridge_from_module(GPT2LMHeadModel(config), architecture="GPT2LMHeadModel", hf_config=config)
    model = randomized(bridge, seed=5)
    contrast = contrast_of(model, tokens)
    found = attribution_patch(model, contrast, steps=32, kinds=("resid_pre",))
    assert found.baselines()["full"].effect[0] == pytest.approx(1.0, abs=0.01)
    last = attribution_patch(model, contrast, kinds=("mlp_out",), heads=("q", "v", "pattern"))
    assert (np.abs(last.measured.changes["logit_diff"]).max(axis=1) > 1e-4).mean() > 0.3


def test_every_metric_but_accuracy(tiny_model, contrast):
    for metric in ("correct_logit", "wrong_logit", "log_prob", "probability", "kl"):
        found = attribution_patch(tiny_model, contrast, kinds=("resid_post",), metric=metric)
        assert found.metrics == (metric,)
        assert np.abs(found.measured.changes[metric]).max() > 1e-3
    raised, lowered = (
        attribution_patch(tiny_model, contrast, kinds=("resid_post",), metric=metric).measured.changes[metric]
        for metric in ("correct_logit", "wrong_logit")
    )
    both = attribution_patch(tiny_model, contrast, kinds=("resid_post",)).measured.changes["logit_diff"]
    np.testing.assert_allclose(raised - lowered, both, atol=1e-6)
    with pytest.raises(ValueError, match="accuracy has no gradient"):
        attribution_patch(tiny_model, contrast, metric="accuracy")


def test_the_answer_does_not_depend_on_the_batch_size(tiny_model, contrast):
    expected = attribution_patch(tiny_model, contrast, **SITES).measured.changes["logit_diff"]
    for batch_size in (1, 2):
        found = attribution_patch(tiny_model, contrast, budget=Budget(batch_size=batch_size), **SITES)
        np.testing.assert_allclose(found.measured.changes["logit_diff"], expected, atol=1e-5)


def test_cells_are_those_of_the_patching_sweep(tiny_model, contrast):
    found = attribution_patch(tiny_model, contrast, **SITES)
    true = patch_sweep(tiny_model, contrast, metrics=("logit_diff",), **SITES)
    assert found.cells == true.cells
    np.testing.assert_allclose(found.measured.gaps["logit_diff"], true.measured.gaps["logit_diff"], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "denoising"}, "unknown direction 'denoising': denoise or noise"),
        ({"metric": "logitdiff"}, "unknown metric 'logitdiff', did you mean 'logit_diff'"),
        ({"kinds": ("resid_per",)}, "unknown kind 'resid_per'; did you mean.*resid_pre"),
        ({"kinds": ("resid_mid",)}, "L0.resid_mid cannot be written"),
        ({"kinds": ()}, "nothing to patch"),
        ({"controls": UNRELATED}, "no attribution with unrelated donors"),
        ({"steps": 0}, "steps=0"),
        ({"budget": Budget(batch_size=0)}, "batch_size=0"),
    ],
)
def test_what_cannot_be_asked(tiny_model, contrast, options, message):
    with pytest.raises(ValueError, match=message):
        attribution_patch(tiny_model, contrast, **options)


def test_train_mode_and_missing_gaps_are_refused(make_tiny, tiny_model, contrast):
    with pytest.raises(ValueError, match="train mode"):
        attribution_patch(make_tiny().train(), contrast)
    same = Contrast(contrast.clean, contrast.clean, contrast.at, contrast.answer, contrast.foil, contrast.places)
    with pytest.raises(ValueError, match="none of 5 pairs has a gap"):
        attribution_patch(tiny_model, same)
    table = attribution_patch(tiny_model, same, controls=ANY_GAP).frame()
    assert table["effect"].isna().all()
    assert (table["n"] == 0).all()


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny()


@pytest.fixture(scope="module")
def eight_pairs(model):
    tokens = torch.randint(0, 13, (8, 8), generator=torch.Generator().manual_seed(1))
    return contrast_with_gap(model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((8,), 6))


@pytest.fixture(scope="module")
def estimated(model, eight_pairs):
    return attribution_patch(model, eight_pairs, labels={"task": "none", "run_seed": 3}, **SITES)


@pytest.fixture(scope="module")
def true(model, eight_pairs):
    return patch_sweep(model, eight_pairs, metrics=("logit_diff", "kl"), **SITES)


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


def test_only_the_same_question_is_compared(model, eight_pairs, estimated, true):
    with pytest.raises(ValueError, match="'direction': 'noise'"):
        estimated.agreement(replace(true, direction="noise"))
    with pytest.raises(ValueError, match="the gaps differ"):
        estimated.agreement(patch_sweep(model, eight_pairs.select(slice(0, 4)), metrics=("logit_diff",)))
    with pytest.raises(ValueError, match="log_prob was not patched, only"):
        attribution_patch(model, eight_pairs, metric="log_prob").agreement(true)
    with pytest.raises(ValueError, match="no cell in common"):
        attribution_patch(model, eight_pairs, kinds=("resid_post",)).agreement(true)


def test_a_part_of_the_cells_can_be_compared(model, eight_pairs, true):
    some = attribution_patch(model, eight_pairs, kinds=("mlp_out", "resid_post")).agreement(true)
    assert some.frame()["sites"].tolist() == ["all sites", "mlp_out"]


def test_the_figure_says_what_it_is(estimated, model, eight_pairs):
    figure = estimated.figure()
    drawn = np.concatenate([np.ravel(trace.z) for trace in figure.data if trace.type == "heatmap"])
    np.testing.assert_allclose(np.sort(drawn[np.isfinite(drawn)]), np.sort(estimated.effects().effect))
    title = figure.layout.title.text.replace("<br>", " ")
    assert "estimated from gradients at the recipient" in title
    assert "agreement with true patching" in title
    several = attribution_patch(model, eight_pairs, kinds=("mlp_out",), steps=2).figure()
    assert "averaged over 2 steps" in several.layout.title.text.replace("<br>", " ")


CELLS = tuple(Cell(Site("resid_pre", layer), f"position {i}") for layer in range(2) for i in range(4))
CELLS += tuple(Cell(Site("z", 0, head), "position 0") for head in range(4))
#                  resid_pre                                     z of heads
EFFECT = np.array([0.9, 0.0, 0.5, -0.8, 0.3, 0.2, 0.1, 0.0] + [0.6, 0.0, -0.4, 0.05])
SCORE = np.array([0.8, 0.0, 0.4, 0.2, 0.35, 0.1, 0.05, 0.0] + [0.5, 0.0, -0.3, 0.10])


def row(sites, **options):
    table = agreement_of(CELLS, SCORE, EFFECT, **{"top": (1, 3, 20), **options}).frame()
    return table[table["sites"] == sites].iloc[0]


def test_the_table_worked_by_hand():
    """Ranks by size: 0.9 -0.8 0.6 0.5 -0.4 0.3 0.2 0.1 0.05 against 0.8 0.5 0.4 0.35 -0.3 0.2 0.1 0.1 0.05."""
    overall = row("all sites")
    assert overall[["n", "left_out", "ranking"]].tolist() == [9, 3, "absolute"]
    assert overall[["overlap_1", "overlap_3"]].tolist() == [1.0, 2 / 3]
    assert np.isnan(overall["overlap_20"])
    assert overall["max_difference"] == pytest.approx(1.0)
    # Squared rank differences 16 + 1 + 1 + 0 + 4 + 0.25 + 1 + 2.25 of nine cells, one pair of ties among the scores.
    effect, score = np.array([9, 6, 8, 4, 3, 2, 7, 5, 1]), np.array([9, 7, 4, 6, 2.5, 1, 8, 5, 2.5])
    assert overall["spearman"] == pytest.approx(np.corrcoef(effect, score)[0, 1])
    nonzero = EFFECT != 0
    assert overall["pearson"] == pytest.approx(np.corrcoef(EFFECT[nonzero], SCORE[nonzero])[0, 1])


def test_kinds_are_compared_by_themselves():
    assert row("resid_pre")[["n", "left_out"]].tolist() == [6, 2]
    heads = row("z of heads")
    assert heads[["n", "left_out", "overlap_1", "overlap_3"]].tolist() == [3, 1, 1.0, 1.0]
    assert heads["spearman"] == pytest.approx(1.0)
    assert heads["max_difference"] == pytest.approx(0.1)


def test_signed_ranking_is_another_answer():
    """By size -0.8 is the second largest effect; signed it is the last, and its score of 0.2 is in the middle."""
    signed, absolute = row("all sites", ranking="signed"), row("all sites")
    assert signed["ranking"] == "signed"
    assert signed["overlap_3"] == 1.0
    assert absolute["overlap_3"] == 2 / 3
    assert signed["spearman"] != absolute["spearman"]


def test_cells_that_are_zero_on_both_sides_do_not_help():
    """Zeros appended to both would raise the correlation without end."""
    more = tuple(Cell(Site("resid_pre", 2), f"position {i}") for i in range(50))
    padded = agreement_of(CELLS + more, np.append(SCORE, np.zeros(50)), np.append(EFFECT, np.zeros(50)))
    plain = agreement_of(CELLS, SCORE, EFFECT)
    assert padded.frame().iloc[0]["spearman"] == plain.frame().iloc[0]["spearman"]
    assert padded.frame().iloc[0]["left_out"] == 53
    assert "L2.resid_pre" not in padded.worst(100)["site"].tolist()


def test_the_worst_cells():
    worst = agreement_of(CELLS, SCORE, EFFECT).worst(2)
    assert worst["site"].tolist()[0] == "L0.resid_pre"
    assert worst["place"].tolist()[0] == "position 3"
    assert worst["difference"].tolist()[0] == pytest.approx(1.0)
    assert len(worst) == 2


def test_scores_of_noise_do_not_agree():
    rng = np.random.default_rng(0)
    cells = tuple(Cell(Site("resid_pre", 0), f"position {i}") for i in range(400))
    table = agreement_of(cells, rng.normal(size=400), rng.normal(size=400), top=(40,)).frame().iloc[0]
    assert abs(table["spearman"]) < 0.15
    assert table["overlap_40"] < 0.3


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="unknown ranking 'size': absolute or signed"):
        agreement_of(CELLS, SCORE, EFFECT, ranking="size")
    with pytest.raises(ValueError, match="all 12 cells are exactly 0"):
        agreement_of(CELLS, 0 * SCORE, 0 * EFFECT)
    with pytest.raises(ValueError, match="name at least one k"):
        agreement_of(CELLS, SCORE, EFFECT, top=(0,))


def test_constant_sides_have_no_correlation():
    table = agreement_of(CELLS, 0 * SCORE, EFFECT, top=(3,)).frame()
    assert table["spearman"].isna().all()
    assert table["max_difference"].iloc[0] == pytest.approx(0.9)


def test_the_figure_has_every_cell(tmp_path):
    result = agreement_of(CELLS, SCORE, EFFECT, labels={"task": "z6"})
    figure = result.figure()
    assert sum(len(trace.x) for trace in figure.data) == len(CELLS)
    assert [trace.name for trace in figure.data] == ["resid_pre", "z of heads"]
    assert "absolute" in figure.layout.title.text
    assert result.save(tmp_path, "agreement")[0].read_text().startswith("task,sites,n,left_out,ranking,spearman")
