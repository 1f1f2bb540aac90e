"""TransformerLens's own patching on native and foreign bridges, per example, and what a bug would look like."""

import pytest
import torch

from cotinterp.calibration.peers import PEERS, peer_agreement
from cotinterp.mechanism.interventions import patch
from cotinterp.mechanism.patching import runs
from tests.mechanism.contrasts import contrast_with_gap, replaced

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
"""Logits of order 1 to 10 in float32; stacking changes their rounding."""
SWEPT = [check for check, peer in PEERS.items() if peer.ours == "patch_sweep"]
WRITTEN = ["attn_head_v_by_pos", "attn_head_pattern_all_pos"]


def asked(model, d_vocab):
    """Two examples, three positions, the second one changed; heads (4) are no other number."""
    tokens = torch.randint(0, d_vocab, (2, 3), generator=torch.Generator().manual_seed(0))
    return contrast_with_gap(model, tokens, replaced(tokens, [1], d_vocab=d_vocab), torch.tensor([2, 2]))


def test_foreign_bridges_agree(bridge):
    found = peer_agreement(bridge, asked(bridge, 41), name="foreign", checks=[*SWEPT, *WRITTEN])
    assert len(found) == 2 * (len(SWEPT) + len(WRITTEN))
    assert (found["largest_difference"] < TOLERANCE).all()
    assert (found["largest_change"] > 0.01).all()
    n_kv = bridge.cfg.n_key_value_heads or 4
    cells = dict(zip(found["check"], found["cells"], strict=True))
    assert cells["get_act_patch_attn_head_out_by_pos"] == 2 * 4 * 3
    assert cells["get_act_patch_attn_head_v_by_pos"] == 2 * n_kv * 3


def test_native_bridges_agree(tiny_model):
    found = peer_agreement(tiny_model, asked(tiny_model, 13), checks=["resid_pre", "attn_head_out_by_pos"])
    assert (found["largest_difference"] < TOLERANCE).all()
    assert (found["largest_change"] > 0.01).all()


def test_heads_in_another_order_would_show(gpt2, monkeypatch):
    in_order = runs.head_sites
    monkeypatch.setattr(runs, "head_sites", lambda model, kind: in_order(model, kind)[::-1])
    found = peer_agreement(gpt2, asked(gpt2, 41), checks=["attn_head_out_all_pos"])
    assert (found["largest_difference"] > 1000 * TOLERANCE).all()


def test_a_position_too_late_would_show(gpt2, monkeypatch):
    from cotinterp.calibration import peers as module

    monkeypatch.setattr(module, "patch", lambda site, donor, mask, **kw: patch(site, donor, mask.roll(1, 1), **kw))
    found = peer_agreement(gpt2, asked(gpt2, 41), checks=["attn_head_v_by_pos"])
    assert (found["largest_difference"] > 1000 * TOLERANCE).all()


def test_unknown_checks_name_those_there_are(bridge):
    with pytest.raises(KeyError, match="no checks .'resid_mid'.*resid_pre"):
        peer_agreement(bridge, asked(bridge, 41), checks=["resid_mid"])
