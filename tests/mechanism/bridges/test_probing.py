"""Probes of a foreign bridge at the user's own positions, with labels of the user's own."""

import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.probing.controls import hold_out
from cotinterp.mechanism.probing.fit import fit_probes
from cotinterp.mechanism.sites import Site

N, HELD_OUT = 240, 1 / 3


@pytest.fixture(scope="module")
def prompts():
    return torch.randint(0, 16, (N, 6), generator=torch.Generator().manual_seed(3))


def accuracies(bridge, prompts, position):
    """Of a probe for the upper half of the symbols, at position 2, read at `position`."""
    sites = [Site("resid_pre", 0), Site("v", 0), Site("z", 0)]
    held = activations(bridge, prompts, sites, positions=torch.full((N,), position), batch_size=100)
    features = {site: held[site].flatten(1) for site in sites}
    label = (prompts[:, 2] >= 8).long().numpy()
    # What a causal model can know at position 2 is one group: prompts that begin alike look alike.
    groups = (prompts[:, :3] * torch.tensor([256, 16, 1])).sum(dim=1)
    result = fit_probes(features, {"upper half": label}, hold_out(groups, fraction=HELD_OUT), groups=groups)
    table = result.frame()
    return dict(zip(table["kind"], table["accuracy"], strict=True))


def test_a_token_is_decodable_where_it_stands_and_in_its_values(bridge, prompts):
    found = accuracies(bridge, prompts, 2)
    assert found["resid_pre"] == 1.0
    assert found["v"] == 1.0
    assert found["z"] > 0.75


def test_it_is_not_there_before_it_was_read(bridge, prompts):
    """A position too early is at chance: an off-by-one would show."""
    assert all(accuracy < 0.7 for accuracy in accuracies(bridge, prompts, 1).values())
