"""Each edit of attention against arithmetic by hand; `test_edited_runs` holds it to its hooks."""

import pytest
import torch

from cotinterp.mechanism.heads.attention_edits import Attention, CutAttention, HeadOutput, MovedValues
from cotinterp.mechanism.interventions import InertEditError
from cotinterp.mechanism.sites import Site
from cotinterp.models.native.parts import forward, native_parts


@pytest.fixture
def state(tiny_model, tokens):
    with torch.no_grad():
        return forward(native_parts(tiny_model), tokens)[1][1]


@pytest.fixture
def held(state):
    """All queries of layer 1."""
    return Attention(torch.arange(8).expand(5, -1), state.pattern, state.v, state.z)


def mask_of(dest, *sources):
    mask = torch.zeros(5, 8, 8, dtype=torch.bool)
    mask[:, dest, list(sources)] = True
    return mask


def test_a_head_gets_another_output(state, held):
    own, site = state.z[:, :, 2], Site("z", 1, 2)
    value = own.clone()
    value[3, 4] += 1.0
    edit = HeadOutput(site, value, own)
    assert edit.start(state) == 4
    change = edit.applied(held) - held.z
    assert change[3, 4, 2].allclose(torch.ones(4))
    assert int(change.any(dim=-1).sum()) == 1
    assert HeadOutput(site, own, own).start(state) == 8


@pytest.mark.parametrize("head", [None, 1])
def test_other_values_are_moved_with_the_same_weights(state, held, head):
    values = state.v + 2.0
    edit = MovedValues(1, head, values, state.v, mask_of(5, 1, 2))
    assert edit.start(state) == 5
    change = edit.applied(held) - held.z
    weights = state.pattern[:, :, 5, 1:3].sum(dim=-1)
    some = slice(None) if head is None else slice(head, head + 1)
    torch.testing.assert_close(change[:, 5, some], 2 * weights[:, some, None].expand(-1, -1, 4))
    change[:, 5, some] = 0
    assert not change.any()


@pytest.mark.parametrize("head", [None, 1])
def test_cut_attention_is_renormalized(state, held, head):
    edit = CutAttention(1, head, mask_of(5, 1, 2))
    z, some = edit.applied(held), slice(None) if head is None else slice(head, head + 1)
    pattern = state.pattern[:, some, 5].clone()
    pattern[..., 1:3] = 0
    expected = torch.einsum("bhk,bkhd->bhd", pattern / pattern.sum(dim=-1, keepdim=True), state.v[:, :, some])
    torch.testing.assert_close(z[:, 5, some], expected)
    z[:, 5, some] = held.z[:, 5, some]
    assert torch.equal(z, held.z)


def test_a_cut_that_cuts_nothing_raises(state):
    """Position 2 cannot see position 6: there is no attention to cut."""
    with pytest.raises(InertEditError, match=r"the cut of L1.pattern changes no value"):
        CutAttention(1, None, mask_of(2, 6)).start(state)
    assert CutAttention(1, None, mask_of(2, 6), expect_change=False).start(state) == 2
