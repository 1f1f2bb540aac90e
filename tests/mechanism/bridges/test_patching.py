"""Sweeps over a foreign bridge, both directions, with the user's own tokens and positions."""

import pytest
import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.sweep import patch_sweep
from tests.mechanism.contrasts import replaced

pytestmark = pytest.mark.slow

CHANGED = 2


@pytest.fixture(params=["denoise", "noise"])
def sweep(request, bridge, question):
    kinds = ("resid_pre", "attn_out", "mlp_out", "v")
    return patch_sweep(bridge, question, kinds=kinds, heads=True, direction=request.param)


def effects(sweep, kind, layer, head=None):
    """Effect by position."""
    found = sweep.effects().effect
    return [
        float(found[i])
        for i, cell in enumerate(sweep.cells)
        if (cell.site.kind, cell.site.layer, cell.site.head) == (kind, layer, head)
    ]


def test_baselines_are_exact(sweep):
    baselines = sweep.baselines()
    assert float(baselines["self"].effect[0]) == 0.0
    assert float(baselines["full"].effect[0]) == 1.0
    assert sweep.effects().n == 5


def test_at_the_embeddings_the_changed_token_is_everything(sweep):
    found = effects(sweep, "resid_pre", 0)
    assert found[:CHANGED] + found[CHANGED + 1 :] == [0.0] * 6
    assert found[CHANGED] == pytest.approx(1.0, abs=1e-6)


def test_nothing_before_the_change_and_something_at_every_kind_of_site(sweep):
    for kind, head in [("resid_pre", None), ("attn_out", None), ("mlp_out", None), ("v", None), ("z", 0), ("z", 3)]:
        for layer in range(2):
            found = effects(sweep, kind, layer, head)
            assert found[:CHANGED] == [0.0, 0.0]
            assert max(map(abs, found[CHANGED:])) > 1e-3, (kind, layer, head)


def test_all_heads_of_a_layer_together_are_its_attention(bridge, question):
    """z of all heads and attn_out are one affine map apart, so that patching either is the same."""
    found = patch_sweep(bridge, question, kinds=("z", "attn_out"))
    for layer in range(2):
        assert effects(found, "z", layer) == pytest.approx(effects(found, "attn_out", layer), abs=1e-5)


def test_noising_is_denoising_with_the_runs_exchanged(bridge, question):
    swapped = Contrast.by_position(question.corrupted, question.clean, question.at, question.foil, question.answer)
    noise = patch_sweep(bridge, question, heads=True, direction="noise")
    denoise = patch_sweep(bridge, swapped, heads=True, direction="denoise")
    assert noise.cells == denoise.cells
    assert noise.effects().effect == pytest.approx(denoise.effects().effect, abs=1e-9)


def test_places_of_the_users_own(bridge, tokens):
    """Two changed tokens, at other positions in each row, as one place; the rest as another."""
    first = torch.tensor([0, 1, 2, 0, 1])
    changed = (torch.arange(7) == first[:, None]) | (torch.arange(7) == first[:, None] + 2)
    corrupted = torch.where(changed, replaced(tokens, list(range(7)), d_vocab=41), tokens)
    at, rows = torch.full((5,), 6), torch.arange(5)
    with torch.no_grad():
        raised = (bridge(tokens) - bridge(corrupted))[rows, at]
    places = {"changed": changed, "rest": ~changed}
    contrast = Contrast(tokens, corrupted, at, raised.argmax(-1), raised.argmin(-1), places)
    sweep = patch_sweep(bridge, contrast)
    assert effects(sweep, "resid_pre", 0) == pytest.approx([1.0, 0.0], abs=1e-6)
    assert set(sweep.frame()["role"]) >= {"changed", "rest"}
    assert 0.0 not in effects(sweep, "resid_pre", 1)


def test_patterns_that_are_shown_after_the_fact_are_refused(make_bridge, tokens):
    model = make_bridge("gptj")
    at, rows = torch.full((5,), 6), torch.arange(5)
    corrupted = replaced(tokens, [CHANGED], d_vocab=41)
    with torch.no_grad():
        raised = (model(tokens) - model(corrupted))[rows, at]
    contrast = Contrast.by_position(tokens, corrupted, at, raised.argmax(-1), raised.argmin(-1))
    with pytest.raises(ValueError, match="pattern.*discarded.*write q, k, v or z"):
        patch_sweep(model, contrast, kinds=("pattern",))
    assert effects(patch_sweep(model, contrast), "resid_pre", 0)[CHANGED] == pytest.approx(1.0, abs=1e-6)
