"""Gradient estimates of patching: exact where the model is linear, and compared with the truth where it is not."""

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
from cotinterp.mechanism.patching.attribution_patching import attribution_patch
from cotinterp.mechanism.patching.runs import FIRST, Cell
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.sites import Site
from tests.mechanism.contrasts import ANY_GAP, UNRELATED, replaced, told_apart

AT = 6
SITES = {"kinds": ("resid_pre", "attn_out", "mlp_out"), "heads": True}


def contrast_of(model, tokens, changed=(1, 3)):
    return told_apart(model, tokens, replaced(tokens, list(changed), d_vocab=13), torch.full((5,), AT))


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
