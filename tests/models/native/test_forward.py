import pytest
import torch

from cotinterp.models.build import as_bridge
from cotinterp.models.native.parts import forward, native_parts


@torch.no_grad()
def test_the_logits_are_the_modules_and_the_bridges(native, tokens):
    before = native(tokens)
    raw = forward(native_parts(native), tokens)[0]
    bridge = as_bridge(native)
    wrapped = forward(native_parts(bridge), tokens)[0]
    torch.testing.assert_close(raw, before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(wrapped, bridge(tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_state_is_what_the_hooks_hold(bridge, kind, tokens):
    cache = bridge.run_with_cache(tokens)[1]
    for layer, state in enumerate(forward(native_parts(bridge), tokens)[1]):
        # Hooks see queries and keys before they are turned, states hold them after it.
        turned = ("q", "k") if kind["positions"] == "standard" else ()
        for name in ("resid_pre", "attn_out", "mlp_out", "resid_post", "v", "z", "pattern", *turned):
            inside = "attn." if name in ("q", "k", "v", "z", "pattern") else ""
            held = cache[f"blocks.{layer}.{inside}hook_{name}"]
            torch.testing.assert_close(getattr(state, name), held, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_another_first_input_replaces_what_the_tokens_say(bridge, tokens):
    parts = native_parts(bridge)
    logits, states = forward(parts, tokens)
    elsewhere = forward(parts, tokens.flip(0), resid=states[0].resid_pre)[0]
    assert torch.equal(elsewhere, logits)


def test_gradients_reach_the_parameters(native, tokens):
    forward(native_parts(native), tokens)[0].square().sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in native.named_parameters()}
    native.zero_grad()
    native(tokens).square().sum().backward()
    for name, parameter in native.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-4, rtol=1e-4)


def test_a_sequence_beyond_the_context_is_refused(module):
    with pytest.raises(ValueError, match="13 tokens in a context of 12"):
        forward(native_parts(module), torch.zeros(1, 13, dtype=torch.int64))
