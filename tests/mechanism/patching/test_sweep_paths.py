"""Which way a sweep takes: from the weights of a native model, or by the hooks of any other."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.patching.sweep import patch_sweep
from tests.mechanism.contrasts import BY_HOOKS, replaced, told_apart


@pytest.fixture
def contrast(tiny_model, tokens):
    return told_apart(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))


def changes(result):
    return result.measured.changes["logit_diff"]


def counted(model, monkeypatch):
    """How many passes the model itself makes from now on."""
    passes = []
    forward = type(model).forward

    def count(self, *args, **named):
        passes.append(len(args[0]))
        return forward(self, *args, **named)

    monkeypatch.setattr(type(model), "forward", count)
    return passes


def test_a_native_model_is_patched_from_its_weights_and_by_hooks_where_asked(tiny_model, contrast, monkeypatch):
    passes = counted(tiny_model, monkeypatch)
    fast = patch_sweep(tiny_model, contrast, heads=True)
    assert len(passes) == 1, "one look at the model, to compare"
    slow = patch_sweep(tiny_model, contrast, heads=True, controls=BY_HOOKS)
    assert len(passes) > 5
    np.testing.assert_allclose(changes(fast), changes(slow), atol=2e-5)


def test_hooks_that_somebody_attached_act_on_the_sweep(make_tiny, contrast):
    """The weights alone would not know of them."""
    model = make_tiny()
    without = changes(patch_sweep(model, contrast, kinds=("attn_out",)))
    with model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", lambda value, hook: 0 * value)]):
        found = changes(patch_sweep(model, contrast, kinds=("attn_out",)))
        np.testing.assert_array_equal(
            found, changes(patch_sweep(model, contrast, kinds=("attn_out",), controls=BY_HOOKS))
        )
    assert np.abs(found - without).max() > 1e-3


def test_a_model_whose_forward_pass_was_replaced_is_run_as_it_is(make_tiny, contrast, monkeypatch):
    model = make_tiny()
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, *args, **named: 2.0 * forward(self, *args, **named))
    with pytest.warns(UserWarning, match=r"not those of its weights \(off by 0\.5 of the largest logit\)"):
        found = patch_sweep(model, contrast)
    slow = patch_sweep(model, contrast, controls=BY_HOOKS)
    assert found.measured.gaps["logit_diff"].tolist() == slow.measured.gaps["logit_diff"].tolist()
