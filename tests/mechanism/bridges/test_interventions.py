"""Edits of a foreign bridge: they fire, they act, and they act where their name says."""

import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import Edit, ablate_zero, knock_out, patch, run_with
from cotinterp.mechanism.sites import HEAD_AXIS, KINDS, Site

WRITABLE = [kind for kind in KINDS if kind != "resid_mid"]


@pytest.fixture
def logits(bridge, tokens):
    return run_with(bridge, tokens, [])


def read(model, tokens, site):
    return activations(model, tokens, [site])[site]


def seen(model, tokens, edits, site):
    """What `site` holds in a run with these edits."""
    found = []
    run_with(model, tokens, [*edits, Edit(site, lambda now: found.append(now.clone()) or now, expect_change=False)])
    return found[0]


@pytest.mark.parametrize("kind", WRITABLE)
def test_patching_oneself_is_bitwise_nothing_and_another_run_moves_the_logits(bridge, tokens, other, logits, kind):
    for site in (Site(kind, 0), Site(kind, 1)):
        own = patch(site, read(bridge, tokens, site), expect_change=False)
        assert torch.equal(run_with(bridge, tokens, [own]), logits), site
        patched = run_with(bridge, tokens, [patch(site, read(bridge, other, site))])
        assert float((patched - logits).abs().max()) > 1e-3, site


@pytest.mark.parametrize("kind", list(HEAD_AXIS))
def test_every_head_acts_by_itself(bridge, tokens, other, logits, kind):
    for layer in range(2):
        effects = []
        for head in range(Site(kind, layer).n_heads(bridge)):
            site = Site(kind, layer, head)
            effects.append(run_with(bridge, tokens, [patch(site, read(bridge, other, site))]) - logits)
        assert all(float(effect.abs().max()) > 1e-3 for effect in effects)
        assert not any(torch.allclose(effect, effects[0], atol=1e-4) for effect in effects[1:])


@pytest.mark.parametrize("site", [Site("resid_pre", 0), Site("resid_pre", 1), Site("resid_post", 1)], ids=str)
def test_the_whole_stream_of_another_run_gives_its_logits_bit_for_bit(bridge, tokens, other, site):
    expected = run_with(bridge, other, [])
    assert torch.equal(run_with(bridge, tokens, [patch(site, read(bridge, other, site))]), expected)


@pytest.mark.parametrize("kind", WRITABLE)
def test_an_edit_at_one_position_changes_nothing_before_it(bridge, tokens, other, logits, kind):
    site, positions = Site(kind, 0), torch.tensor([1, 2, 4, 5, 6])
    patched = run_with(bridge, tokens, [patch(site, read(bridge, other, site), positions)])
    for row, position in enumerate(positions.tolist()):
        assert torch.equal(patched[row, :position], logits[row, :position])
        assert not torch.equal(patched[row, position:], logits[row, position:])


def test_a_head_is_one_term_of_attn_out(bridge, tokens):
    for head in range(4):
        z = read(bridge, tokens, Site("z", 1, head))
        expected = read(bridge, tokens, Site("attn_out", 1)) - z @ bridge.W_O[1, head].detach()
        torch.testing.assert_close(
            seen(bridge, tokens, [ablate_zero(Site("z", 1, head))], Site("attn_out", 1)), expected
        )


def test_a_value_reaches_the_heads_of_its_group_and_no_others(bridge, tokens):
    group = 4 // Site("v", 0).n_heads(bridge)
    before = read(bridge, tokens, Site("z", 0))
    after = seen(bridge, tokens, [ablate_zero(Site("v", 0, 1))], Site("z", 0))
    moved = [head for head in range(4) if not torch.equal(before[:, :, head], after[:, :, head])]
    assert moved == list(range(group, 2 * group))


def test_a_knocked_out_key_is_a_masked_key(bridge, tokens):
    """In every layer and head: what the model's own attention mask does, at all positions but the masked one."""
    keys = torch.zeros(5, 7, dtype=torch.bool)
    keys[:, 2] = True
    positions = torch.arange(7).expand(5, 7)
    with torch.no_grad():
        expected = bridge.original_model(tokens, attention_mask=(~keys).long(), position_ids=positions).logits
    blind = run_with(bridge, tokens, [knock_out(Site("pattern", layer), keys) for layer in range(2)])
    kept = [0, 1, 3, 4, 5, 6]
    torch.testing.assert_close(blind[:, kept], expected[:, kept], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(blind[:, 3:], run_with(bridge, tokens, [])[:, 3:], atol=1e-2)


def test_resid_mid_is_refused_because_the_stream_goes_around_it(bridge, tokens, other):
    """TransformerLens lets the MLP read what is written there, while the residual stream keeps the old value."""
    mid, post = Site("resid_mid", 0), Site("resid_post", 0)
    with pytest.raises(ValueError, match="L0.resid_mid cannot be written"):
        patch(mid, read(bridge, other, mid))
    found, donor = [], read(bridge, other, mid)
    hooks = [(mid.hook, lambda now, hook: donor), (post.hook, lambda now, hook: found.append(now))]
    with torch.no_grad():
        bridge.run_with_hooks(tokens, fwd_hooks=hooks)
    around = read(bridge, tokens, mid) + read(bridge, other, Site("mlp_out", 0))
    torch.testing.assert_close(found[0], around)


def test_the_model_is_left_as_it_was(bridge, tokens, other, logits):
    with pytest.raises(ValueError, match="does not fit"):
        run_with(bridge, tokens, [Edit(Site("z", 0, 1), torch.zeros(3, 3, 3))])
    run_with(bridge, tokens, [patch(Site("pattern", 1), read(bridge, other, Site("pattern", 1)))])
    assert torch.equal(run_with(bridge, tokens, []), logits)
    assert not any(point.fwd_hooks for point in bridge.hook_dict.values())
