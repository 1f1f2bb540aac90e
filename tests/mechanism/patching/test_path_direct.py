"""Run 2 position by position, by hand; `test_path_native` holds whole sweeps to their hooks."""

import pytest
import torch

from cotinterp.mechanism.patching.path_native import SenderChange, head_output, run_frozen
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import forward, native_parts

AT = torch.tensor([7, 3, 7, 7, 7])


@pytest.fixture
def runs(tiny_model, tokens):
    parts, other = native_parts(tiny_model), tokens.clone()
    other[:, 3] = (other[:, 3] + 1) % 13
    with torch.no_grad():
        return parts, forward(parts, tokens)[1], forward(parts, other)[1]


def sent_by(runs, site, place=None):
    parts, own, donor = runs
    everywhere = torch.ones(5, 8, dtype=torch.bool) if place is None else place
    return SenderChange.of(parts, site, own[site.layer], donor[site.layer], everywhere)


def test_a_head_sends_its_change_through_its_own_output_weights(tiny_model, runs):
    site = Site("z", 0, 2)
    sent, (parts, own, donor) = sent_by(runs, site), runs
    assert sent.position.min() == 3
    assert torch.equal(head_output(parts, site), tiny_model.W_O[0, 2])
    change = (donor[0].z - own[0].z)[sent.row, sent.position, 2] @ tiny_model.W_O[0, 2]
    torch.testing.assert_close(sent.stream - sent.own, change, atol=1e-6, rtol=1e-5)


def test_places_where_both_runs_agree_send_nothing(runs):
    before = torch.zeros(5, 8, dtype=torch.bool)
    before[:, :3] = True
    assert sent_by(runs, Site("z", 0, 2), before) is None


@pytest.mark.parametrize("through_mlps", [True, False])
def test_one_block_later(runs, through_mlps):
    """The stream goes through the first MLP or past it, takes up the recipient's attention, and is read by layer 1."""
    parts, own, _ = runs
    sent, asked = sent_by(runs, Site("attn_out", 0)), frozenset({Site("q", 1), Site("mlp_out", 1)})
    found = run_frozen(parts, own, sent, sent.stream, asked, AT, through_mlps=through_mlps, to_the_end=True)
    here = sent.row, sent.position
    first = parts.blocks[0].mlp(sent.stream) if through_mlps else own[0].mlp_out[here]
    stream = sent.stream + first
    torch.testing.assert_close(found.inputs[Site("q", 1)], parts.qkv(parts.blocks[1], stream, sent.position)[:, 0])
    between = stream + own[1].attn_out[here]
    torch.testing.assert_close(found.inputs[Site("mlp_out", 1)], parts.blocks[1].mlp(between))
    last = between + (parts.blocks[1].mlp(between) if through_mlps else own[1].mlp_out[here])
    assert found.read.tolist() == [i for i in range(len(sent.row)) if sent.position[i] == AT[sent.row[i]]]
    torch.testing.assert_close(found.stream, last[found.read])


def test_the_recipients_own_stream_gives_what_it_holds(runs):
    parts, own, _ = runs
    sent, asked = sent_by(runs, Site("resid_pre", 0)), frozenset({Site("k", 1), Site("mlp_out", 0)})
    found = run_frozen(parts, own, sent, sent.own, asked, AT, through_mlps=True, to_the_end=False)
    assert set(found.inputs) == asked
    for site, value in found.inputs.items():
        held = getattr(own[site.layer], site.kind)[sent.row, sent.position]
        torch.testing.assert_close(value, held, atol=1e-5, rtol=1e-5)
