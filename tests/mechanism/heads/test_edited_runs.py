"""Runs from the weights against the same edits made by hooks."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads.ablation import ablate_heads
from cotinterp.mechanism.heads.attention import patterns
from cotinterp.mechanism.heads.attention_edits import EditedRuns
from cotinterp.mechanism.heads.backups import direct_change
from cotinterp.mechanism.heads.knock_outs import cut_attention, exchange_values
from cotinterp.mechanism.heads.losses import draw_donors, logits_lost
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.sites import Site, head_sites, residual_sites
from cotinterp.models.native.parts import native_parts
from tests.mechanism.contrasts import replaced, told_apart

SETS = [[(0, 1)], [(2, 3)], [(0, 0), (0, 2)], [(1, 1), (2, 0)], [(0, 3), (1, 0), (2, 2)], []]
DONORS = draw_donors(np.zeros(5, dtype=np.int64), 2, np.random.default_rng(0))


@pytest.fixture(params=[6, (6, 4, 7, 5, 3)], ids=["one readout", "many"])
def at(request):
    return torch.full((5,), request.param) if isinstance(request.param, int) else torch.tensor(request.param)


def contrast_of(model, tokens, at):
    return told_apart(model, tokens, replaced(tokens, [2], d_vocab=13), at)


def named(sets):
    return [[Site("z", layer, head) for layer, head in heads] for heads in sets]


def close(fast, slow, *, atol=2e-5):
    torch.testing.assert_close(fast, slow, atol=atol, rtol=1e-5)
    assert not fast[(slow == 0)].any(), "what cannot matter is exactly 0"
    assert float(slow.nan_to_num().abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("norm", "positions"), [("LN", "rotary"), ("LNPre", "standard"), ("RMS", "standard"), (None, "rotary")]
)
def test_heads_replaced_alone_and_together(make_tiny, tokens, at, norm, positions):
    model = make_tiny(n_layers=3, normalization_type=norm, positional_embedding_type=positions)
    contrast = contrast_of(model, tokens, at)
    for method in ("resample", "zero"):
        fast, slow = (
            ablate_heads(model, contrast, named(SETS), DONORS, method=method, by_hooks=by_hooks)
            for by_hooks in (False, True)
        )
        close(fast, slow, atol=2e-5 if norm else 2e-4)
        assert not fast[-1].any()


@pytest.mark.parametrize("changes", [{"act_fn": "relu"}, {"attn_only": True}, {"n_layers": 1}])
def test_other_blocks(make_tiny, tokens, at, changes):
    model = make_tiny(**changes)
    contrast, sets = contrast_of(model, tokens, at), [[site] for site in head_sites(model)]
    close(*(ablate_heads(model, contrast, sets, DONORS, by_hooks=by_hooks, batch_size=2) for by_hooks in (False, True)))


@pytest.mark.parametrize(("layers", "head"), [((0,), None), ((1,), 2), ((2,), None), ((0, 1, 2), 1), ((0, 1, 2), None)])
def test_reads_cut_and_values_exchanged(make_tiny, tokens, at, layers, head):
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens, at)
    position = torch.arange(8)
    sources = torch.zeros(5, 8, dtype=torch.bool)
    sources[:, [1, 2]] = True
    everywhere = (position[:, None] > 2) & sources[:, None]
    readout = everywhere & (position[None, :] == at[:, None])[:, :, None]
    (_, pattern), *_ = patterns(model, tokens)
    own = activations(model, tokens, residual_sites(model, "v"))
    zero = {site: torch.zeros_like(value) for site, value in own.items()}
    n = int(at.max()) + 1
    plans = []
    for mask in (everywhere[:, :n, :n], readout[:, :n, :n]):
        mass = (pattern[..., :n, :n] * mask[None, :, None]).sum(dim=(-1, -2)).transpose(1, 2)
        plans.append(cut_attention(mask, mass, layers, head))
        plans.append(exchange_values(mask, cut(own, n), cut(own, n), layers, head, resampled=True))
        plans.append(exchange_values(mask, cut(zero, n), cut(own, n), layers, head, resampled=False))
    close(*(logits_lost(model, contrast, plans, DONORS, by_hooks=by_hooks) for by_hooks in (False, True)))


def cut(values, n):
    return {site: value[:, :n] for site, value in values.items()}


def test_what_heads_write_once_another_is_gone(make_tiny, tokens, at):
    model = make_tiny(n_layers=3)
    contrast, heads = contrast_of(model, tokens, at), head_sites(model)
    fast, slow = (direct_change(model, contrast, heads, DONORS, by_hooks=by_hooks) for by_hooks in (False, True))
    close(fast, slow)
    assert not fast[0, 1:4].any()
    assert not fast[5, :4].any()


def test_an_example_that_names_itself_loses_exactly_nothing(make_tiny, tokens, at):
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens, at)
    itself = np.arange(5)[None]
    assert not ablate_heads(model, contrast, named(SETS), itself).any()
    own = activations(model, tokens, residual_sites(model, "v"))
    mask = torch.ones(5, 8, 8, dtype=torch.bool).tril()
    n = int(at.max()) + 1
    plan = exchange_values(mask[:, :n, :n], cut(own, n), cut(own, n), (0, 1, 2), None, resampled=True)
    assert not logits_lost(model, contrast, [plan], itself).any()


def test_unedited_runs_are_the_models_own(make_tiny, tokens, at):
    model = make_tiny(n_layers=3)
    edited, clean = EditedRuns.of(native_parts(model), tokens, at).edited([])
    with torch.no_grad():
        logits = model(tokens)
    torch.testing.assert_close(clean.logits, logits[torch.arange(5), at], atol=1e-5, rtol=1e-5)
    assert torch.equal(edited.logits, clean.logits)


def test_a_model_with_hooks_of_its_own_keeps_them(make_tiny, tokens, at):
    """With a head ablated by somebody else, resampling it costs nothing."""
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens, at)

    def ablated(z, **_):
        z = z.clone()
        z[:, :, 1] = 0.0
        return z

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", ablated)]):
        lost = ablate_heads(model, contrast, named([[(0, 1)], [(0, 2)]]), DONORS)
    assert not lost[0].any()
    assert lost[1].abs().max() > 1e-3


def test_the_comparison_can_fail(make_tiny, tokens, at):
    """Negative control: other weights give other losses."""
    contrast = contrast_of(make_tiny(n_layers=3), tokens, at)
    one, other = (ablate_heads(make_tiny(n_layers=3, seed=s), contrast, named(SETS), DONORS) for s in (0, 1))
    assert (one - other).abs().max() > 1e-2
    rows = torch.arange(5)
    with torch.no_grad():
        logits = make_tiny(n_layers=3)(tokens)
    assert torch.isfinite(logit_diff(logits, contrast.at, contrast.answer, contrast.foil)[rows]).all()
