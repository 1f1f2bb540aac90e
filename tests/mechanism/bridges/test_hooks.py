"""Architectures in which a site is missing, never fires, or is laid out in another way say so."""

import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.hooks import available_kinds, hooked
from cotinterp.mechanism.interventions import Edit, InertEditError, knock_out, patch, run_with
from cotinterp.mechanism.sites import HEAD_AXIS, KINDS, Site, residual_sites


def test_all_kinds_of_gpt2_and_llama(bridge):
    assert available_kinds(bridge, 1) == KINDS


def test_a_parallel_block_has_no_resid_mid(make_bridge, tokens):
    model = make_bridge("gptj")
    assert available_kinds(model) == tuple(kind for kind in KINDS if kind != "resid_mid")
    with pytest.raises(ValueError, match=r"no \['L1.resid_mid'\]; layer 1 has \['resid_pre'.*side by side"):
        activations(model, tokens, [Site("resid_mid", 1), Site("z", 1)])


def test_a_block_without_attention_has_no_heads(make_bridge, tokens):
    model = make_bridge("mamba")
    assert available_kinds(model) == ("resid_pre", "resid_post")
    assert len(activations(model, tokens, residual_sites(model))) == 2
    with pytest.raises(ValueError, match="no .'L0.z'.*'resid_post'.*without attention"):
        run_with(model, tokens, [Edit(Site("z", 0), torch.zeros(()))])


def test_patterns_that_never_fire_name_the_way_out(make_bridge, tokens):
    pattern = Site("pattern", 0)
    with pytest.raises(ValueError, match=r"never reached \['L0.pattern'\].*attn_implementation='eager'"):
        activations(make_bridge("opt"), tokens, [pattern])
    with pytest.raises(InertEditError, match="did not fire.*attn_implementation='eager'"):
        run_with(make_bridge("opt"), tokens, [knock_out(pattern, tokens > 20)])
    eager = make_bridge("opt", attn_implementation="eager")
    found = activations(eager, tokens, [pattern])[pattern]
    torch.testing.assert_close(found.sum(-1), torch.ones(5, 4, 7))


@pytest.mark.parametrize(("name", "changes"), [("gptj", {}), ("opt", {"attn_implementation": "eager"})])
def test_an_edit_that_fires_and_is_discarded_raises(make_bridge, tokens, other, name, changes):
    """The worst of them: the hook is fired, the value is changed, and the logits stay as they are."""
    model, pattern = make_bridge(name, **changes), Site("pattern", 1)
    donor = activations(model, other, [pattern])[pattern]
    with pytest.warns(UserWarning, match="edit is discarded"), torch.no_grad():
        same = model.run_with_hooks(tokens, fwd_hooks=[(pattern.hook, lambda now, hook: donor)])
    assert torch.equal(same, run_with(model, tokens, []))
    with pytest.raises(InertEditError, match="L1.pattern.*was discarded.*write q, k, v or z"):
        run_with(model, tokens, [patch(pattern, donor)])
    acts = run_with(model, tokens, [patch(Site("v", 1), activations(model, other, [Site("v", 1)])[Site("v", 1)])])
    assert float((acts - same).abs().max()) > 1e-3


def test_heads_laid_out_in_another_way_are_refused(make_bridge, tokens):
    """Multi-head latent attention: q, k and v come head by head, and z has twice as many heads of half the size."""
    model = make_bridge("deepseek")
    for kind in ("q", "k", "v", "z"):
        with pytest.raises(ValueError, match=f"L0.{kind} holds .* expected .heads on axis -2.*mixed up"):
            activations(model, tokens, [Site(kind, 0, 1)])
        with pytest.raises(ValueError, match="mixed up"):
            run_with(model, tokens, [Edit(Site(kind, 0, 1), torch.zeros(()))])
    assert len(activations(model, tokens, residual_sites(model, "attn_out"))) == 2


@pytest.mark.parametrize("kind", list(HEAD_AXIS))
def test_a_model_that_swaps_two_axes_is_refused(bridge, tokens, kind):
    """Negative control: the same activation with two of its axes exchanged."""
    site, calls = Site(kind, 1), []

    class Swapping:
        cfg, run_with_cache, __call__ = bridge.cfg, bridge.run_with_cache, bridge.__call__

        def hooks(self, fwd_hooks):
            return bridge.hooks(fwd_hooks=[(name, self.swapped(function)) for name, function in fwd_hooks])

        @staticmethod
        def swapped(function):
            return lambda now, hook: function(now.transpose(1, 2), hook=hook)

    with torch.no_grad(), hooked(bridge, tokens, [(site, lambda now, hook: calls.append(now))]):
        bridge(tokens)
    assert len(calls) == 1
    with (
        pytest.raises(ValueError, match=f"L1.{kind} holds"),
        torch.no_grad(),
        hooked(Swapping(), tokens, [(site, lambda now, hook: calls.append(now))]),
    ):
        bridge(tokens)
    assert len(calls) == 1
