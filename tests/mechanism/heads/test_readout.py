"""The readout is the model's own logit difference, written as a linear function of the residual stream."""

import pytest
import torch

from cotinterp.mechanism.activations import run_and_read
from cotinterp.mechanism.heads.attribution import frozen_readout
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import weight
from cotinterp.mechanism.sites import Site

NORMS = ["LN", "LNPre", "RMS", "RMSPre", None]
AT = torch.tensor([7, 3, 5, 7, 0])
ANSWER = torch.tensor([1, 2, 3, 4, 5])
FOIL = torch.tensor([6, 7, 8, 9, 10])


def residual_and_difference(model, tokens):
    logits, found = run_and_read(model, tokens, [Site("resid_post", 1)], positions=AT)
    return found[Site("resid_post", 1)], logit_diff(logits, AT, ANSWER, FOIL)


@pytest.mark.parametrize("norm", NORMS)
def test_readout_of_the_residual_is_the_logit_difference(make_tiny, tokens, norm):
    model = make_tiny(normalization_type=norm, seed=3)
    residual, difference = residual_and_difference(model, tokens)
    readout = frozen_readout(model, residual, ANSWER, FOIL)
    torch.testing.assert_close((readout.of(residual) + readout.constant).float(), difference, atol=1e-5, rtol=1e-5)


def test_a_layer_norm_before_a_forced_rms_norm_reads_out_by_rms(make_tiny, tokens):
    model = make_tiny(normalization_type="LN", final_rms=True)
    residual, difference = residual_and_difference(model, tokens)
    readout = frozen_readout(model, residual, ANSWER, FOIL)
    torch.testing.assert_close((readout.of(residual) + readout.constant).float(), difference, atol=1e-5, rtol=1e-5)


def test_layer_norm_ignores_a_constant_part_and_rms_norm_does_not(make_tiny, tokens):
    constant = torch.ones(5, 16)
    for norm, ignored in (("LN", True), ("RMS", False)):
        model = make_tiny(normalization_type=norm)
        residual, _ = residual_and_difference(model, tokens)
        share = frozen_readout(model, residual, ANSWER, FOIL).of(constant)
        assert bool((share.abs() < 1e-6).all()) == ignored


def test_the_layer_norm_bias_is_the_constant(make_tiny, tokens):
    model = make_tiny(normalization_type="LN")
    residual, _ = residual_and_difference(model, tokens)
    expected = (model.ln_final.bias @ (model.W_U[:, ANSWER] - model.W_U[:, FOIL])).detach()
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(frozen_readout(model, residual, ANSWER, FOIL).constant.float(), expected)


def test_the_direction_is_the_gradient_once_the_scale_is_frozen(make_tiny, tokens):
    """Under RMS norm: d/dr of (r / scale * w) . u, with the scale a constant, by autograd."""
    model = make_tiny(normalization_type="RMS")
    residual, _ = residual_and_difference(model, tokens)
    stream = residual.double().requires_grad_()
    scale = (stream.square().mean(-1, keepdim=True) + model.cfg.eps).sqrt().detach()
    normed = stream / scale * model.ln_final.weight.double()
    logits = normed @ model.W_U.double()
    rows = torch.arange(5)
    (logits[rows, ANSWER] - logits[rows, FOIL]).sum().backward()
    torch.testing.assert_close(frozen_readout(model, residual, ANSWER, FOIL).direction, stream.grad)


def test_soft_capped_logits_are_refused(make_tiny, tokens):
    model = make_tiny(output_logits_soft_cap=2.0)
    residual, _ = residual_and_difference(model, tokens)
    with pytest.raises(ValueError, match=r"soft-capped at 2\.0"):
        frozen_readout(model, residual, ANSWER, FOIL)


def test_an_unknown_norm_is_refused_with_the_known_ones(make_tiny, tokens):
    model = make_tiny()
    residual, _ = residual_and_difference(model, tokens)
    model.cfg.normalization_type = "Batch"
    with pytest.raises(ValueError, match=r"'Batch' is not understood; known: .*'LNPre'"):
        frozen_readout(model, residual, ANSWER, FOIL)


def test_a_missing_accessor_is_named(tiny_model):
    with pytest.raises(ValueError, match="offers no W_nothing"):
        weight(tiny_model, "W_nothing")
