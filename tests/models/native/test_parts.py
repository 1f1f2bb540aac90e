"""The pieces of a native model and the forward pass that is made of them, against the model's own."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import NativeModel
from transformer_lens.model_bridge.sources.native.model import NativeAttention

from cotinterp.models.build import alibi_slopes, as_bridge, build_module
from cotinterp.models.native.parts import attend, forward, future_keys, native_parts, why_not_native


def tiny(**changes):
    sizes = {"n_layers": 2, "d_model": 8, "n_heads": 2, "d_head": 4, "d_mlp": 12, "n_ctx": 10, "d_vocab": 7}
    kinds = {"act_fn": "gelu", "normalization_type": "LN", "device": "cpu"}
    module = NativeModel(TransformerBridgeConfig(**{**sizes, **kinds, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


class Tilted(NativeAttention):
    """A forward pass of its own."""

    def forward(self, hidden_states, **named):
        out, pattern = super().forward(hidden_states, **named)
        return out + 1.0, pattern


def tilted():
    module = tiny()
    own = module.layers[1].attn
    module.layers[1].attn = Tilted(module.cfg)
    module.layers[1].attn.load_state_dict(own.state_dict())
    return module


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: SimpleNamespace(cfg=None), "SimpleNamespace is no native TransformerLens model"),
        (lambda: type("Other", (NativeModel,), {})(tiny().cfg), "Other is no native"),
        (lambda: tiny(attention_dir="bidirectional"), "not causal"),
        (lambda: tiny(attn_scores_soft_cap=5.0), "caps scores or logits"),
        (lambda: tiny(output_logits_soft_cap=5.0), "caps scores or logits"),
        (lambda: tiny(n_key_value_heads=1), "attention of layer 0 is NativeAttention or has grouped keys"),
        (tilted, "attention of layer 1 is Tilted"),
        (lambda: as_bridge(tilted()), "attention of layer 1 is Tilted"),
        (lambda: tiny(gated_mlp=True, act_fn="silu"), "MLP of layer 0 is NativeGatedMLP"),
        (lambda: tiny(act_fn="solu_ln"), "MLP of layer 0 is NativeMLP or has a norm of its own"),
    ],
)
def test_what_the_parts_do_not_spell_out_is_named(make, reason):
    model = make()
    assert reason in why_not_native(model)
    assert native_parts(model) is None


def test_folded_weights_are_named():
    bridge = as_bridge(tiny())
    assert why_not_native(bridge) is None
    bridge.enable_compatibility_mode()
    assert why_not_native(bridge) == "its weights were folded by enable_compatibility_mode"


def test_hooks_that_somebody_attached_go_on_firing():
    """Of a bridge while they are attached, and of the torch modules inside."""
    bridge = as_bridge(tiny())
    with bridge.hooks(fwd_hooks=[("blocks.0.hook_attn_out", lambda value, hook: 0 * value)]):
        assert why_not_native(bridge) == "hooks are attached to it"
    assert why_not_native(bridge) is None
    module = tiny()
    for register in (module.layers[1].mlp.fc_in.register_forward_hook, module.ln_out.register_forward_pre_hook):
        handle = register(lambda *given: None)
        assert why_not_native(module) == "torch hooks are attached to its modules"
        handle.remove()
    assert why_not_native(module) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_only": True},
        {"final_rms": True},
        {"d_vocab_out": 3},
        {"attn_scale": 3.0},
        {"act_fn": "solu"},
        {"positional_embedding_type": "rotary", "rotary_dim": 2},
    ],
)
@torch.no_grad()
def test_whatever_else_the_config_asks_for_is_followed(changes):
    module = tiny(**changes)
    tokens = torch.randint(0, 7, (3, 9), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(forward(native_parts(module), tokens)[0], module(tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_parts_read_the_weights_as_they_are_now():
    module = tiny()
    tokens, before = torch.tensor([[1, 2, 3]]), forward(native_parts(module), torch.tensor([[1, 2, 3]]))[0]
    module.layers[0].attn.q.weight.mul_(-2.0)
    after = forward(native_parts(module), tokens)[0]
    torch.testing.assert_close(after, module(tokens), atol=1e-5, rtol=1e-5)
    assert (after - before).abs().max() > 1e-3


@torch.no_grad()
def test_some_of_queries_keys_and_values_are_those_of_all(native):
    parts = native_parts(native)
    rows, positions = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(2)), torch.arange(4, 9)[None]
    whole = parts.qkv(parts.blocks[1], rows, positions)
    for which in (slice(0, 1), slice(1, 3), slice(2, 3)):
        found = parts.projections(parts.blocks[1], rows, positions, which)
        torch.testing.assert_close(found, whole[..., which, :, :], atol=1e-6, rtol=1e-5)


def test_attention_by_hand():
    """Two keys, one head of one dimension: scores 0 and ln 3 make weights 1/4 and 3/4; the first query sees one key."""
    q = torch.ones(2)
    k = torch.tensor([0.0, 2 * math.log(3)])
    v = torch.tensor([8.0, 16.0])
    q, k, v = (x.reshape(1, 2, 1, 1) for x in (q, k, v))
    z, pattern = attend(q, k, v, future_keys(torch.tensor([[0, 1]]), 2), slopes=None, scale=2.0)
    torch.testing.assert_close(pattern[0, 0], torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
    torch.testing.assert_close(z[0, :, 0, 0], torch.tensor([8.0, 14.0]))
    last, row = attend(q[:, 1:], k, v, future_keys(torch.tensor([[1]]), 2), slopes=None, scale=2.0)
    torch.testing.assert_close(row[0, 0], torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(last, z[:, 1:])


def test_each_query_sees_its_own_past_by_hand():
    """Equal scores: z is the mean of the values up to the query's position."""
    q, k = torch.zeros(2, 1, 1, 2), torch.ones(2, 4, 1, 2)
    v = torch.tensor([1.0, 3.0, 8.0, 100.0]).view(1, 4, 1, 1).expand(2, 4, 1, 2)
    z, _ = attend(q, k, v, future_keys(torch.tensor([[1], [2]]), 4), slopes=None, scale=1.0)
    assert z[:, 0, 0].tolist() == [[2.0, 2.0], [4.0, 4.0]]


def test_alibi_by_hand(spec):
    """Equal scores and a slope of ln 2: every step back halves the weight, 1/7, 2/7, 4/7 for the third query."""
    slopes = torch.tensor([math.log(2)])
    q, k = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    _, pattern = attend(q, k, k, future_keys(torch.arange(3)[None], 3), slopes=slopes, scale=1.0)
    torch.testing.assert_close(pattern[0, 0], torch.tensor([[7.0, 0, 0], [7 / 3, 14 / 3, 0], [1, 2, 4]]) / 7)
    module = build_module(spec.model_copy(update={"positions": "alibi"}), 11, seed=0).eval()
    first = module.layers[0].attn
    first.slopes = torch.tensor([math.log(2), 0.0])
    with torch.no_grad():
        first.q.weight.zero_()
        own = first(torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0)))[1]
    torch.testing.assert_close(own[0, 0], pattern[0, 0])
    torch.testing.assert_close(own[0, 1, 2], torch.full((3,), 1 / 3))


def test_slopes_are_those_of_the_paper():
    assert alibi_slopes(8).tolist() == [2.0**-power for power in range(1, 9)]
    assert alibi_slopes(4).tolist() == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]
    assert alibi_slopes(6).tolist() == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    assert alibi_slopes(1).tolist() == [2.0**-8]


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
        turned = ("q", "k") if kind["positions"] != "rotary" else ()
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
    learned = {name: parameter for name, parameter in native.named_parameters() if parameter.requires_grad}
    found = {name: parameter.grad.clone() for name, parameter in learned.items()}
    native.zero_grad()
    native(tokens).square().sum().backward()
    for name, parameter in learned.items():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-4, rtol=1e-4)


def test_a_sequence_beyond_the_context_is_refused(module):
    with pytest.raises(ValueError, match="13 tokens in a context of 12"):
        forward(native_parts(module), torch.zeros(1, 13, dtype=torch.int64))
