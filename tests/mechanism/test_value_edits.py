"""Values replaced along some paths: by hand, against a patch of v, and in a run that is edited elsewhere."""

import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import patch, replace_values, run_with, steer, watch
from cotinterp.mechanism.sites import Site


@pytest.fixture
def other(tokens):
    """Another batch: every token replaced by the next one of the vocabulary."""
    return (tokens + 1) % 13


def read(model, tokens, site):
    return activations(model, tokens, [site])[site]


@pytest.mark.parametrize("head", [None, 1])
def test_replaced_values_move_along_the_mask_and_nowhere_else(tiny_model, tokens, other, head):
    """z of a destination gains pattern * (their values - own) over its marked sources, by hand."""
    mask = torch.zeros(5, 8, 8, dtype=torch.bool)
    mask[:, 6, [2, 4]] = True
    theirs, own = (read(tiny_model, batch, Site("v", 1)) for batch in (other, tokens))
    z, pattern, seen = read(tiny_model, tokens, Site("z", 1)), read(tiny_model, tokens, Site("pattern", 1)), {}
    run_with(tiny_model, tokens, [*replace_values(1, theirs, mask, head), watch(Site("z", 1), seen)])
    for moved in range(4) if head is None else (head,):
        for src in (2, 4):
            z[:, 6, moved] += pattern[:, moved, 6, src, None] * (theirs - own)[:, src, moved]
    torch.testing.assert_close(seen[Site("z", 1)], z)


def test_all_values_replaced_are_the_donors_values_patched(tiny_model, tokens, other):
    """Along every path at once, it is a patch of v."""
    everywhere = torch.ones(5, 8, 8, dtype=torch.bool)
    theirs = read(tiny_model, other, Site("v", 1))
    found = run_with(tiny_model, tokens, replace_values(1, theirs, everywhere))
    torch.testing.assert_close(found, run_with(tiny_model, tokens, [patch(Site("v", 1), theirs)]))


def test_values_of_the_edited_run_are_replaced(tiny_model, tokens, other):
    """`own` is what stands there in this run: with all values replaced, an edit of v before that is forgotten."""
    everywhere, theirs = torch.ones(5, 8, 8, dtype=torch.bool), read(tiny_model, other, Site("v", 1))
    stirred = steer(Site("v", 1), torch.ones(4, 4))
    found = run_with(tiny_model, tokens, [stirred, *replace_values(1, theirs, everywhere)])
    torch.testing.assert_close(found, run_with(tiny_model, tokens, replace_values(1, theirs, everywhere)))


def test_values_cannot_be_replaced_where_the_pattern_is_not_known_yet(tiny_model, tokens):
    mask, values = torch.ones(5, 8, 8, dtype=torch.bool), torch.zeros(5, 8, 4, 4)
    *_, alone = replace_values(1, values, mask)
    with pytest.raises(ValueError, match="L1.z is made before L1.pattern or L1.v is known"):
        run_with(tiny_model, tokens, [alone])


def test_own_values_change_nothing(tiny_model, tokens):
    own = read(tiny_model, tokens, Site("v", 0))
    everywhere = torch.ones(5, 8, 8, dtype=torch.bool)
    assert torch.equal(
        run_with(tiny_model, tokens, replace_values(0, own, everywhere)), run_with(tiny_model, tokens, [])
    )
