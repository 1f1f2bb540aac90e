import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import Edit, InertEditError, run_with
from cotinterp.mechanism.patching.blocks import minus, stacked_changes
from cotinterp.mechanism.sites import Site

SITES = [Site("resid_pre", 0), Site("z", 1, 2), Site("attn_out", 0), Site("resid_pre", 0), Site("pattern", 1)]


def read(logits, stack=1):
    return {"logit_diff": (logits[:, -1, 0] - logits[:, -1, 1]).double().numpy()}


def masks(tokens):
    """One position for each site, over the heads of the kinds that have them."""
    found = []
    for i, site in enumerate(SITES):
        mask = torch.zeros(*tokens.shape, dtype=torch.bool)
        mask[:, i + 2] = True
        heads = torch.ones(4, dtype=torch.bool) if site.head is None else torch.arange(4) == site.head
        found.append(mask[..., None] & heads if site.kind in ("z", "pattern") else mask)
    return found


@pytest.mark.parametrize("stack", [1, 2, 3, 100])
def test_every_slot_is_an_edit_of_its_own(tiny_model, tokens, stack):
    """Against one `run_with` for each edit; the last stack need not be full, and not every edit is pending."""
    donors = activations(tiny_model, tokens.flip(0), {site.whole for site in SITES})
    pending = [0, 3, 1, 4]
    found = {}
    for chunk, change in stacked_changes(
        tiny_model, tokens, SITES, masks(tokens), donors, pending, read, stack=stack, checked=True
    ):
        found |= dict(zip(chunk, change["logit_diff"], strict=True))
    assert sorted(found) == sorted(pending)
    before = read(run_with(tiny_model, tokens, []))
    for i in pending:
        position = torch.zeros(tokens.shape, dtype=torch.bool)
        position[:, i + 2] = True
        edit = Edit(SITES[i], SITES[i].of(donors[SITES[i].whole]), position)
        expected = minus(read(run_with(tiny_model, tokens, [edit])), before)["logit_diff"]
        assert found[i] == pytest.approx(expected, abs=2e-5), SITES[i]


def test_an_edit_that_changes_nothing_raises(tiny_model, tokens):
    own = activations(tiny_model, tokens, {site.whole for site in SITES})
    with pytest.raises(InertEditError, match="changed no value"):
        list(stacked_changes(tiny_model, tokens, SITES, masks(tokens), own, [0], read, stack=1, checked=True))


def test_nothing_pending_runs_nothing(tiny_model, tokens):
    assert list(stacked_changes(tiny_model, tokens, SITES, masks(tokens), {}, [], read, stack=4, checked=True)) == []
