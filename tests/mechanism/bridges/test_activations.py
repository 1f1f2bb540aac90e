"""What the sites of a foreign bridge hold, recomputed from the weights of the Hugging Face model inside it."""

import pytest
import torch
from einops import einsum, rearrange

from cotinterp.mechanism.activations import activations, run_and_read
from cotinterp.mechanism.sites import KINDS, Site, head_sites, residual_sites

CONFIGS = {"GPT2LMHeadModel": (4, 8), "LlamaForCausalLM": (2, 10)}


@pytest.fixture
def held(bridge, tokens):
    return activations(bridge, tokens, [Site(kind, 1) for kind in KINDS])


def the(held, kind):
    return held[Site(kind, 1)]


def test_logits_are_those_of_the_hugging_face_model(bridge, tokens):
    with torch.no_grad():
        expected = bridge.original_model(tokens).logits
    logits, _ = run_and_read(bridge, tokens, residual_sites(bridge))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_layouts_and_numbers_of_heads(bridge, held):
    n_kv, d_head = CONFIGS[bridge.cfg.model_name]
    expected = dict.fromkeys(KINDS, (5, 7, 32)) | {"q": (5, 7, 4, d_head), "z": (5, 7, 4, d_head)}
    expected |= {"k": (5, 7, n_kv, d_head), "v": (5, 7, n_kv, d_head), "pattern": (5, 4, 7, 7)}
    assert {site.kind: tuple(value.shape) for site, value in held.items()} == expected
    assert len(head_sites(bridge)) == 8
    assert len(head_sites(bridge, "v")) == 2 * n_kv


def test_the_stream_starts_at_the_embeddings_and_adds_up(bridge, tokens, held):
    start = activations(bridge, tokens, [Site("resid_pre", 0)])[Site("resid_pre", 0)]
    positions = bridge.W_pos[: tokens.shape[1]] if bridge.cfg.model_name == "GPT2LMHeadModel" else 0
    torch.testing.assert_close(start, bridge.W_E[tokens] + positions)
    torch.testing.assert_close(the(held, "resid_pre") + the(held, "attn_out"), the(held, "resid_mid"))
    torch.testing.assert_close(the(held, "resid_mid") + the(held, "mlp_out"), the(held, "resid_post"))


def normed(bridge, stream):
    """The first norm of layer 1, by hand, from the parameters of the Hugging Face model."""
    if bridge.cfg.model_name == "GPT2LMHeadModel":
        norm = bridge.original_model.transformer.h[1].ln_1
        centered = stream - stream.mean(-1, keepdim=True)
        return centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias
    weight = bridge.original_model.model.layers[1].input_layernorm.weight
    return stream / (stream.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_queries_keys_and_values_are_projections_of_the_normed_stream(bridge, held, kind):
    with torch.no_grad():
        if bridge.cfg.model_name == "GPT2LMHeadModel":
            fused = bridge.original_model.transformer.h[1].attn.c_attn
            everything = normed(bridge, the(held, "resid_pre")) @ fused.weight + fused.bias
            flat = everything.split(32, dim=-1)["qkv".index(kind)]
        else:
            projection = getattr(bridge.original_model.model.layers[1].self_attn, f"{kind}_proj")
            flat = normed(bridge, the(held, "resid_pre")) @ projection.weight.T
    expected = rearrange(flat, "batch pos (head d) -> batch pos head d", d=CONFIGS[bridge.cfg.model_name][1])
    torch.testing.assert_close(the(held, kind), expected)


def test_patterns_are_causal_and_move_values_of_their_group(bridge, held):
    pattern = the(held, "pattern")
    torch.testing.assert_close(pattern.sum(-1), torch.ones(5, 4, 7))
    assert torch.equal(pattern.triu(1), torch.zeros_like(pattern))
    group = 4 // CONFIGS[bridge.cfg.model_name][0]
    for head in range(4):
        moved = pattern[:, head] @ the(held, "v")[:, :, head // group]
        torch.testing.assert_close(the(held, "z")[:, :, head], moved)


def test_heads_write_through_the_output_projection(bridge, held):
    with torch.no_grad():
        if bridge.cfg.model_name == "GPT2LMHeadModel":
            output = bridge.original_model.transformer.h[1].attn.c_proj
            weight, bias = output.weight, output.bias
        else:
            weight, bias = bridge.original_model.model.layers[1].self_attn.o_proj.weight.T, 0
        by_head = rearrange(weight, "(head d) model -> head d model", head=4)
        written = einsum(the(held, "z"), by_head, "b pos head d, head d model -> b pos model") + bias
    torch.testing.assert_close(the(held, "attn_out"), written)


def test_the_users_own_positions(bridge, tokens, held):
    positions = torch.tensor([6, 0, 3, 2, 5])
    found = activations(bridge, tokens, [Site("z", 1, 2), Site("pattern", 1, 3)], positions=positions, batch_size=2)
    for row, position in enumerate(positions.tolist()):
        torch.testing.assert_close(found[Site("z", 1, 2)][row], the(held, "z")[row, position, 2])
        torch.testing.assert_close(found[Site("pattern", 1, 3)][row], the(held, "pattern")[row, 3, position])


def test_reading_leaves_the_model_as_it_was(bridge, tokens):
    before = {name: value.clone() for name, value in bridge.state_dict().items()}
    activations(bridge, tokens, [Site(kind, 0) for kind in KINDS])
    assert all(torch.equal(before[name], value) for name, value in bridge.state_dict().items())
    assert not any(point.fwd_hooks for point in bridge.hook_dict.values())
