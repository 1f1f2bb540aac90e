"""Each edit of attention by hand, and runs from the weights against the same edits made by hooks."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads.ablation import ablate_heads
from cotinterp.mechanism.heads.attention import patterns
from cotinterp.mechanism.heads.attention_edits import Attention, CutAttention, EditedRuns, HeadOutput, MovedValues
from cotinterp.mechanism.heads.backups import direct_change
from cotinterp.mechanism.heads.knock_outs import cut_attention, exchange_values
from cotinterp.mechanism.heads.losses import logits_lost
from cotinterp.mechanism.interventions import InertEditError, draw_donors
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.sites import Site, head_sites, residual_sites
from cotinterp.models.native.parts import forward, native_parts
from tests.mechanism.contrasts import contrast_with_gap, replaced

pytestmark = pytest.mark.slow


@pytest.fixture
def state(tiny_model, tokens):
    with torch.no_grad():
        return forward(native_parts(tiny_model), tokens)[1][1]


@pytest.fixture
def held(state):
    """All queries of layer 1."""
    return Attention(torch.arange(8).expand(5, -1), state.pattern, state.v, state.z)


def mask_of(dest, *sources):
    mask = torch.zeros(5, 8, 8, dtype=torch.bool)
    mask[:, dest, list(sources)] = True
    return mask


def test_a_head_gets_another_output(state, held):
    own, site = state.z[:, :, 2], Site("z", 1, 2)
    value = own.clone()
    value[3, 4] += 1.0
    edit = HeadOutput(site, value, own)
    assert edit.start(state) == 4
    change = edit.applied(held) - held.z
    assert change[3, 4, 2].allclose(torch.ones(4))
    assert int(change.any(dim=-1).sum()) == 1
    assert HeadOutput(site, own, own).start(state) == 8


@pytest.mark.parametrize("head", [None, 1])
def test_other_values_are_moved_with_the_same_weights(state, held, head):
    values = state.v + 2.0
    edit = MovedValues(1, head, values, state.v, mask_of(5, 1, 2))
    assert edit.start(state) == 5
    change = edit.applied(held) - held.z
    weights = state.pattern[:, :, 5, 1:3].sum(dim=-1)
    some = slice(None) if head is None else slice(head, head + 1)
    torch.testing.assert_close(change[:, 5, some], 2 * weights[:, some, None].expand(-1, -1, 4))
    change[:, 5, some] = 0
    assert not change.any()


@pytest.mark.parametrize("head", [None, 1])
def test_cut_attention_is_renormalized(state, held, head):
    edit = CutAttention(1, head, mask_of(5, 1, 2))
    z, some = edit.applied(held), slice(None) if head is None else slice(head, head + 1)
    pattern = state.pattern[:, some, 5].clone()
    pattern[..., 1:3] = 0
    expected = torch.einsum("bhk,bkhd->bhd", pattern / pattern.sum(dim=-1, keepdim=True), state.v[:, :, some])
    torch.testing.assert_close(z[:, 5, some], expected)
    z[:, 5, some] = held.z[:, 5, some]
    assert torch.equal(z, held.z)


def test_a_cut_that_cuts_nothing_raises(state):
    """Position 2 cannot see position 6: there is no attention to cut."""
    with pytest.raises(InertEditError, match=r"the cut of L1.pattern changes no value"):
        CutAttention(1, None, mask_of(2, 6)).start(state)
    assert CutAttention(1, None, mask_of(2, 6), expect_change=False).start(state) == 2


SETS = [[(0, 1)], [(2, 3)], [(0, 0), (0, 2)], [(1, 1), (2, 0)], [(0, 3), (1, 0), (2, 2)], []]
DONORS = draw_donors(np.zeros(5, dtype=np.int64), 2, np.random.default_rng(0))


@pytest.fixture(params=[6, (6, 4, 7, 5, 3)], ids=["one readout", "many"])
def at(request):
    return torch.full((5,), request.param) if isinstance(request.param, int) else torch.tensor(request.param)


def contrast_of(model, tokens, at):
    return contrast_with_gap(model, tokens, replaced(tokens, [2], d_vocab=13), at)


def named(sets):
    return [[Site("z", layer, head) for layer, head in heads] for heads in sets]


def close(fast, slow, *, atol=2e-5):
    torch.testing.assert_close(fast, slow, atol=atol, rtol=1e-5)
    unmoved = slow == 0
    assert not fast[unmoved.all(dim=-1)].any(), "what cannot matter is exactly 0"
    assert not (fast[unmoved].abs() > 5e-7).any(), (
        "a loss of less than the last digit of a logit may be seen in one way"
    )
    assert float(slow.nan_to_num().abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("norm", "positions"),
    [("LN", "rotary"), ("LNPre", "standard"), ("RMS", "standard"), (None, "rotary"), ("LN", "alibi")],
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
