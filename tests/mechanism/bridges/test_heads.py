"""The table of heads of a foreign bridge: no task, no batch, reads named by the user's own masks."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads.ablation import ablate_heads
from cotinterp.mechanism.heads.attribution import logit_attribution
from cotinterp.mechanism.heads.losses import Draws
from cotinterp.mechanism.heads.table import head_table
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.sites import Site, head_sites


@pytest.fixture
def reads(tokens):
    """Where a head looks from position 5 and 6: at position 2, and at position 4."""
    masks = {name: torch.zeros(5, 7, 7, dtype=torch.bool) for name in ("previous_total", "next_operand")}
    masks["previous_total"][:, 5:, 2] = True
    masks["next_operand"][:, 5:, 4] = True
    return {name: {"readout": mask} for name, mask in masks.items()}


def test_one_row_a_head_with_attribution_and_attention(bridge, question, reads):
    result = head_table(bridge, question, reads, draws=Draws(n_donors=2))
    table = result.frame()
    assert list(zip(table["layer"], table["head"], strict=True)) == [(s.layer, s.head) for s in head_sites(bridge)]
    direct = logit_attribution(bridge, question).heads().flatten(0, 1).mean(-1)
    np.testing.assert_allclose(table["attribution"], direct, atol=1e-6)
    patterns = activations(bridge, question.clean, [Site("pattern", 0), Site("pattern", 1)])
    read = question.at >= 5
    looked = torch.stack(list(patterns.values()))[:, read, :, question.at[read], 2].mean(dim=0).flatten()
    np.testing.assert_allclose(table["attention_to_previous_total"], looked, atol=1e-6)
    assert torch.isfinite(result.ablation).all()
    assert float(result.ablation.abs().mean(-1).min()) > 1e-3
    assert result.figure().data


def test_an_ablated_head_has_the_z_of_its_donor(bridge, question):
    """By TransformerLens's own hooks, one head at a time."""
    donors = np.array([[1, 2, 3, 4, 0]])
    sites = head_sites(bridge)
    lost = ablate_heads(bridge, question, [[site] for site in sites], donors)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(question.clean)
        for row, site in zip(lost, sites, strict=True):
            z = cache[site.hook]

            def swap(now, hook, head=site.head, z=z):
                now = now.clone()
                now[:, :, head] = z[donors[0], :, head]
                return now

            ablated = bridge.run_with_hooks(question.clean, fwd_hooks=[(site.hook, swap)])
            clean, edited = (
                logit_diff(each, question.at, question.answer, question.foil) for each in (logits, ablated)
            )
            torch.testing.assert_close(row, clean - edited, rtol=1e-4, atol=1e-4)


def test_reads_that_are_not_named_are_missing_and_no_obstacle(bridge, question):
    table = head_table(bridge, question, {}, draws=Draws(n_donors=1)).frame()
    assert table[["attention_to_previous_total", "attention_to_next_operand"]].isna().all(axis=None)
    assert table["attribution"].notna().all()
