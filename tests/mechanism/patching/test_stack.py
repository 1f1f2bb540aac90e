import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import Edit, Write, run_with
from cotinterp.mechanism.patching.runs import Meter, StackedRuns, minus
from cotinterp.mechanism.sites import Site
from tests.mechanism.contrasts import replaced, told_apart

SITES = [Site("resid_pre", 0), Site("z", 1, 2), Site("attn_out", 0), Site("resid_pre", 0), Site("pattern", 1)]


def masks(tokens):
    """One position for each site, over the heads of the kinds that have them."""
    found = []
    for i, site in enumerate(SITES):
        mask = torch.zeros(*tokens.shape, dtype=torch.bool)
        mask[:, i + 2] = True
        heads = torch.ones(4, dtype=torch.bool) if site.head is None else torch.arange(4) == site.head
        found.append(mask[..., None] & heads if site.kind in ("z", "pattern") else mask)
    return found


@pytest.fixture
def meter(tiny_model, tokens):
    contrast = told_apart(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 7))
    return Meter.against(contrast, ("logit_diff",), run_with(tiny_model, tokens, []))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_every_run_of_a_stack_is_compared_with_itself_unedited(tiny_model, tokens, meter, size):
    """Against one `run_with` for each edit; the last stack need not be full, and runs come in any order."""
    donors = activations(tiny_model, tokens.flip(0), {site.whole for site in SITES})
    writes = [[Write(site, mask, donors[site.whole])] for site, mask in zip(SITES, masks(tokens), strict=True)]
    stacked = StackedRuns.of(tiny_model, meter, tokens, size)
    found = dict(stacked.changes((i, writes[i]) for i in (0, 3, 1, 4)))
    assert list(found) == [0, 3, 1, 4]
    before = meter.of(run_with(tiny_model, tokens, []))
    for i, change in found.items():
        position = torch.zeros(tokens.shape, dtype=torch.bool)
        position[:, i + 2] = True
        edit = Edit(SITES[i], SITES[i].of(donors[SITES[i].whole]), position)
        expected = minus(meter.of(run_with(tiny_model, tokens, [edit])), before)["logit_diff"]
        assert change["logit_diff"] == pytest.approx(expected, abs=2e-5), SITES[i]


def test_a_run_of_the_recipients_own_values_changes_exactly_nothing(tiny_model, tokens, meter):
    own, mask = activations(tiny_model, tokens.repeat(3, 1), [Site("z", 0)]), torch.ones(5, 8, 4, dtype=torch.bool)
    stacked = StackedRuns.of(tiny_model, meter, tokens, 3, [Site("z", 0)])
    assert torch.equal(stacked.unedited[Site("z", 0)], own[Site("z", 0)])
    restored = [Write(Site("z", 0), mask, None, expect_change=False)]
    found = dict(stacked.changes([(0, []), (1, restored)]))
    assert not np.stack([change["logit_diff"] for change in found.values()]).any()
    assert list(stacked.changes([])) == []
