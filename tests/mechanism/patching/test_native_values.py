import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import Edit, run_with, watch
from cotinterp.mechanism.patching.sweep_native import Patches, enters_at, entry
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import forward, native_parts
from tests.mechanism.contrasts import replaced

ROW, POSITION = torch.tensor([3, 1, 3]), torch.tensor([4, 2, 6])


@pytest.mark.parametrize(
    ("label", "layer"),
    [
        ("L0.resid_pre", 0),
        ("L1.k", 1),
        ("L1H2.v", 1),
        ("L0.q", 1),
        ("L0H1.z", 1),
        ("L1.mlp_out", 2),
        ("L1.attn_out", 2),
    ],
)
def test_a_patch_enters_at_the_first_block_that_it_changes(label, layer):
    assert enters_at(Site.parse(label)) == layer


@pytest.mark.parametrize(
    "label",
    ["L0.z", "L0H2.z", "L0H1.pattern", "L0.pattern", "L0H3.q", "L0.attn_out", "L0.mlp_out", "L0.resid_post"],
)
@torch.no_grad()
def test_the_next_input_is_what_the_hooks_would_hold(tiny_model, tokens, label):
    """At the patched positions the donor's doing, elsewhere the recipient's stream."""
    site, parts, other = Site.parse(label), native_parts(tiny_model), replaced(tokens, [0, 2, 4, 6], d_vocab=13)
    own, donor = forward(parts, tokens)[1], forward(parts, other)[1]
    mask = torch.nn.functional.one_hot(POSITION, 8).bool()
    found = entry(parts, own, donor, Patches([site], torch.zeros(3, dtype=torch.int64), ROW, mask), 1, slice(2, 8))
    value = activations(tiny_model, other[ROW], [site])[site]
    seen: dict[Site, torch.Tensor] = {}
    run_with(tiny_model, tokens[ROW], [Edit(site, value, mask), watch(Site("resid_pre", 1), seen)])
    torch.testing.assert_close(found.resid, seen[Site("resid_pre", 1)][:, 2:], atol=1e-5, rtol=1e-5)
    assert (found.run.tolist(), found.position.tolist()) == ([0, 1, 2], POSITION.tolist())
    qkv = parts.qkv(parts.blocks[1], seen[Site("resid_pre", 1)][torch.arange(3), POSITION], POSITION)
    torch.testing.assert_close(found.qkv, qkv, atol=1e-5, rtol=1e-5)
    assert (found.resid - own[1].resid_pre[ROW, 2:]).abs().max() > 1e-3


@torch.no_grad()
def test_one_head_of_keys_is_the_donors_and_all_else_the_recipients(tiny_model, tokens):
    parts, other = native_parts(tiny_model), replaced(tokens, [0, 1], d_vocab=13)
    own, donor = forward(parts, tokens)[1], forward(parts, other)[1]
    mask = torch.nn.functional.one_hot(POSITION, 8).bool()
    patches = Patches([Site("k", 1, 2)], torch.zeros(3, dtype=torch.int64), ROW, mask)
    found = entry(parts, own, donor, patches, 1, slice(0, 8))
    assert torch.equal(found.resid, own[1].resid_pre[ROW])
    expected = torch.stack([own[1].q, own[1].k, own[1].v], dim=2)[ROW, POSITION]
    expected[:, 1, 2] = donor[1].k[ROW, POSITION, 2]
    assert torch.equal(found.qkv, expected)
    assert not torch.equal(own[1].k[ROW, POSITION, 2], donor[1].k[ROW, POSITION, 2])
