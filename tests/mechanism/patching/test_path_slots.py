"""Packing: whoever runs beside a path, and however many do, its change is the same."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.patching.path_native import InputChange, PackedPaths, Recipient
from cotinterp.mechanism.patching.runs import Meter
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import forward, native_parts
from tests.mechanism.path_changes import AT, contrast_of


@pytest.fixture
def arrivals():
    """Twelve paths into streams of every kind, from different positions on; the last one reaches nothing."""
    row = torch.arange(5)

    def one(path, site, position):
        reach = (torch.arange(7) >= position).expand(5, -1) & (path < 11)
        value = torch.randn(5, 16 if site.head is None else 4, generator=torch.Generator().manual_seed(path))
        return InputChange(path, site, row, torch.full((5,), position), value, reach)

    sites = [
        Site("k", 1, 2),
        Site("v", 1, 0),
        Site("attn_out", 0),
        Site("resid_pre", 1),
        Site("v", 2, 3),
        Site("q", 2, 1),
    ]
    return [one(path, sites[path % 6], 1 + path % 5) for path in range(12)]


def test_packs_of_any_size_agree(make_tiny, tokens, arrivals):
    model = make_tiny(n_layers=3)
    contrast = contrast_of(model, tokens).until_readout()
    names = ("logit_diff",)
    with torch.no_grad():
        parts = native_parts(model)
        logits, states = forward(parts, contrast.corrupted)
        meter = Meter(contrast, names, logits[:, AT].double())
        found = []
        for n_tokens in (1, 100, 10_000):
            slots = PackedPaths(Recipient(parts, states, contrast.at), meter, n_tokens, meter.zeros())
            changes = dict(change for arrival in arrivals for change in slots.add(arrival)) | dict(slots.flush())
            assert sorted(changes) == list(range(11))
            assert not slots.itself["logit_diff"].any()
            found.append(np.stack([changes[path]["logit_diff"] for path in range(11)]))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)
    assert np.abs(found[0]).max() > 1e-2
