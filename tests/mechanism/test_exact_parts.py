import re

import pytest
import torch

from cotinterp.mechanism import model_check
from cotinterp.mechanism.heads.attribution import AttributionMismatch, logit_attribution
from cotinterp.mechanism.hooks import hooked
from cotinterp.mechanism.model import tolerance_of
from cotinterp.mechanism.model_check import check_model, exact_parts
from cotinterp.mechanism.sites import KINDS, Site
from cotinterp.models.native.parts import forward
from tests.mechanism.contrasts import contrast_with_gap, replaced


def test_parts_say_what_the_model_says(tiny_model, tokens):
    parts = exact_parts(tiny_model, tokens)
    with torch.no_grad():
        torch.testing.assert_close(forward(parts, tokens)[0], tiny_model(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, True), (torch.bfloat16, False), (torch.float16, False)])
def test_half_precision_is_left_to_the_model(make_tiny, tokens, dtype, exact):
    assert (exact_parts(make_tiny().to(dtype), tokens) is not None) == exact


def test_a_replaced_forward_pass_is_noticed(make_tiny, tokens):
    """No hook is attached and all classes are the usual ones; the model says something else all the same."""
    model = make_tiny()
    mlp = model.original_model.layers[0].mlp._original_component
    forward_of = mlp.forward
    mlp.forward = lambda x: 1.1 * forward_of(x)
    with pytest.warns(UserWarning, match="by_hooks=True takes it without asking"):
        assert exact_parts(model, tokens) is None
    mlp.forward = forward_of
    assert exact_parts(model, tokens) is not None


def test_hooks_and_other_architectures(make_tiny, tokens):
    model = make_tiny()
    with hooked(model, tokens, [(Site("z", 0), lambda z, **_: z)]):
        assert exact_parts(model, tokens) is None
    assert exact_parts(make_tiny(n_key_value_heads=2), tokens) is None


def test_a_resumed_run_that_differs_from_the_whole_one_is_noticed(tiny_model, tokens, monkeypatch):
    """A self-patch in the middle of the text is a check that can fail."""
    honest = model_check.resume
    monkeypatch.setattr(
        model_check, "resume", lambda *args, **named: honest(*args, **{**named, "rows": named["rows"].flip(0)})
    )
    with pytest.warns(UserWarning, match="not those of its weights"):
        assert exact_parts(tiny_model, tokens) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_no_architecture(make_tiny, tokens, dtype):
    """In half precision the laws hold and the parts sum, as far as it can say; what is wrong is wrong there too."""
    name = str(dtype).removeprefix("torch.")
    model = make_tiny().to(dtype)
    assert check_model(model, tokens).sound() == tuple(kind for kind in KINDS if kind != "resid_mid")
    contrast = contrast_with_gap(model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))
    parts = logit_attribution(model, contrast)
    error = (parts.total() - parts.logit_difference).abs().max() / parts.values.abs().sum(0).max()
    assert 1e-6 < error < tolerance_of(model), "it is rounded, and no more"
    attn = model.original_model.layers[1].attn._original_component
    forward = attn.forward
    attn.forward = lambda *given, **named: (0.4 * forward(*given, **named)[0], None)
    check = check_model(model, tokens, layers=[1]).of("z", 1)
    assert re.search(f"off by .* of its size, where rounding in {name} explains", check.note), check
    with pytest.raises(AttributionMismatch, match=f"allowed in {name}"):
        logit_attribution(model, contrast)


def test_the_tolerance_is_that_of_the_precision(make_tiny):
    found = {dtype: tolerance_of(make_tiny().to(dtype)) for dtype in (torch.float64, torch.float32, torch.float16)}
    assert found == {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 4e-3}
