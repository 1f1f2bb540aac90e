"""Run 3 from the receiver on, against an ordinary patch of what the receiver writes."""

import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.patching.path_native import InputChange, Recipient
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import forward, native_parts

AT = torch.tensor([7, 5, 6, 7, 7])


@pytest.fixture
def model(make_tiny):
    return make_tiny(n_layers=3)


@pytest.fixture
def receivers(model, tokens):
    with torch.no_grad():
        parts = native_parts(model)
        return Recipient(parts, forward(parts, tokens)[1], AT)


def arrival_of(site, width):
    """Position 4 of every example, changed by ones."""
    reach = torch.arange(8).expand(5, -1) >= 4
    return InputChange(
        0, site, torch.arange(5), torch.full((5,), 4), torch.ones(5, width), reach & (reach.cumsum(1) < 4)
    )


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_a_written_input_is_what_an_edit_of_it_is(model, receivers, tokens, kind, layer):
    site = Site(kind, layer, 1)
    arrival = arrival_of(site, 4)
    with torch.no_grad():
        found = receivers.logits(arrival.stream, 4, [None, arrival]).unflatten(0, (2, 5))
    own = activations(model, tokens, [site])[site]
    own[:, 4] = 1.0
    # Everything the readout can see: the reach of three queries ends at position 6, so compare examples read there.
    expected = run_with(model, tokens, [Edit(site, own)])[torch.arange(5), AT]
    unpatched = run_with(model, tokens, [])[torch.arange(5), AT]
    torch.testing.assert_close(found[0], unpatched, atol=1e-5, rtol=1e-5)
    seen = AT <= 6 if kind != "q" else torch.ones(5, dtype=torch.bool)
    torch.testing.assert_close(found[1][seen], expected[seen], atol=1e-5, rtol=1e-5)
    assert (found[1] - found[0]).abs().max() > 1e-4 or (kind == "q" and layer == 2)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_a_changed_stream_is_an_edit_of_it(model, receivers, tokens, layer):
    site = Site("resid_pre", layer)
    written = Site("resid_pre", layer) if layer < 3 else Site("resid_post", 2)
    row = torch.arange(5)
    arrival = InputChange(0, site, row, AT, torch.ones(5, 16), torch.ones(5, 8, dtype=torch.bool))
    own = activations(model, tokens, [written])[written]
    own[row, AT] += 1.0
    with torch.no_grad():
        found = receivers.logits(site, 5, [arrival])
    torch.testing.assert_close(found, run_with(model, tokens, [Edit(written, own)])[row, AT], atol=1e-5, rtol=1e-5)


def test_its_own_values_change_exactly_nothing(receivers):
    for site, width in (
        (Site("k", 1, 2), 4),
        (Site("v", 2, 0), 4),
        (Site("attn_out", 1), 16),
        (Site("resid_pre", 3), 16),
    ):
        arrival = receivers.itself(arrival_of(site, width))
        with torch.no_grad():
            same, other = (receivers.logits(arrival.stream, 4, [slot]) for slot in (arrival, None))
        assert torch.equal(same, other)
