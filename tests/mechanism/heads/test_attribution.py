"""Attribution is exact: its parts are the model's own logit difference, and it says so when they are not."""

import copy

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import direct_logit_attribution

from cotinterp.mechanism.activations import run_and_read
from cotinterp.mechanism.heads.attribution import (
    AttributionMismatch,
    AttributionResult,
    Component,
    frozen_readout,
    logit_attribution,
)
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import weight
from cotinterp.mechanism.sites import Site
from tests.mechanism.contrasts import asked
from tests.mechanism.copier import previous_token_copier

AT = torch.tensor([7, 3, 5, 7, 0])
ANSWER = torch.tensor([1, 2, 3, 4, 5])
FOIL = torch.tensor([6, 7, 8, 9, 10])

VARIANTS = {
    "LN": {"normalization_type": "LN"},
    "LNPre": {"normalization_type": "LNPre"},
    "RMS": {"normalization_type": "RMS"},
    "RMSPre": {"normalization_type": "RMSPre"},
    "no norm": {"normalization_type": None},
    "attention only": {"attn_only": True},
    "rotary": {"positional_embedding_type": "rotary"},
    "alibi": {"positional_embedding_type": "alibi"},
    "grouped queries": {"n_key_value_heads": 2},
    "gated MLP": {"gated_mlp": True, "act_fn": "silu"},
    "last norm RMS": {"final_rms": True},
}


def contrast_of(tokens):
    return asked(clean=tokens, at=AT, answer=ANSWER, foil=FOIL)


def own_difference(model, tokens):
    rows = torch.arange(len(tokens))
    with torch.no_grad():
        logits = model(tokens)[rows, AT]
    return logits[rows, ANSWER] - logits[rows, FOIL]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_components_sum_to_the_logit_difference(make_tiny, tokens, variant):
    model = make_tiny(**VARIANTS[variant])
    result = logit_attribution(model, contrast_of(tokens))
    difference = own_difference(model, tokens)
    assert difference.abs().min() > 1e-3
    torch.testing.assert_close(result.total(), difference, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.logit_difference, difference)


@pytest.mark.parametrize("kind", ["token_embedding", "position_embedding", "attention_bias", "mlp_out", "final_bias"])
def test_leaving_any_kind_of_component_out_breaks_the_sum(tiny_model, tokens, kind):
    result = logit_attribution(tiny_model, contrast_of(tokens))
    kept = [row for row, part in enumerate(result.components) if part.kind != kind]
    gap = (result.values[kept].sum(dim=0) - result.logit_difference).abs()
    assert gap.max() > 1e-2


def test_the_components_are_all_there_in_the_order_of_the_model(tiny_model, tokens):
    labels = [part.label for part in logit_attribution(tiny_model, contrast_of(tokens)).components]
    layer = ["L{0}H0", "L{0}H1", "L{0}H2", "L{0}H3", "L{0}.b_O", "L{0}.mlp_out"]
    blocks = [label.format(i) for i in range(2) for label in layer]
    assert labels == ["token_embedding", "position_embedding", *blocks, "final_bias"]


def test_what_a_model_does_not_have_is_no_component(make_tiny, tokens):
    rotary = logit_attribution(make_tiny(positional_embedding_type="rotary"), contrast_of(tokens))
    attention_only = logit_attribution(make_tiny(attn_only=True), contrast_of(tokens))
    assert "position_embedding" not in {part.kind for part in rotary.components}
    assert "mlp_out" not in {part.kind for part in attention_only.components}


def test_agrees_with_transformer_lens_on_sublayers(tiny_model, tokens):
    """It wants folded weights, in which value biases have moved into b_O: attention is compared as a whole."""
    folded = copy.deepcopy(tiny_model)
    folded.enable_compatibility_mode(disable_warnings=True)
    ours = logit_attribution(tiny_model, contrast_of(tokens))
    for row, at in enumerate(AT.tolist()):
        theirs = direct_logit_attribution(
            folded, tokens[row : row + 1], int(ANSWER[row]), int(FOIL[row]), unit="component", pos=at
        )
        parts = dict(zip(theirs.labels, theirs.attribution[:, 0].tolist(), strict=True))
        for layer in range(2):
            attention = ours.heads()[layer, :, row].sum() + ours.of("attention_bias", layer)[row]
            assert float(attention) == pytest.approx(parts[f"{layer}_attn_out"], abs=1e-4)
            assert float(ours.of("mlp_out", layer)[row]) == pytest.approx(parts[f"{layer}_mlp_out"], abs=1e-4)
        assert float(ours.of("token_embedding")[row]) == pytest.approx(parts["embed"], abs=1e-4)
        assert float(ours.of("position_embedding")[row]) == pytest.approx(parts["pos_embed"], abs=1e-4)


def test_agrees_with_transformer_lens_on_every_head(tiny_model, tokens):
    """On the folded model itself, where heads mean the same to both."""
    folded = copy.deepcopy(tiny_model)
    folded.enable_compatibility_mode(disable_warnings=True)
    ours = logit_attribution(folded, contrast_of(tokens)).heads()
    for row, at in enumerate(AT.tolist()):
        theirs = direct_logit_attribution(
            folded, tokens[row : row + 1], int(ANSWER[row]), int(FOIL[row]), unit="head", pos=at
        )
        heads = [value for label, value in zip(theirs.labels, theirs.attribution[:, 0], strict=True) if "H" in label]
        torch.testing.assert_close(ours[:, :, row].flatten(), torch.stack(heads), atol=1e-4, rtol=0)


def test_the_model_is_left_as_it_was(tiny_model, tokens):
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    logit_attribution(tiny_model, contrast_of(tokens))
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.state_dict().items())


def test_swapping_answer_and_foil_turns_every_sign(tiny_model, tokens):
    one = logit_attribution(tiny_model, contrast_of(tokens))
    other = logit_attribution(tiny_model, asked(clean=tokens, at=AT, answer=FOIL, foil=ANSWER))
    torch.testing.assert_close(one.values, -other.values)


def test_a_batch_in_pieces_gives_the_same(tiny_model, tokens):
    whole = logit_attribution(tiny_model, contrast_of(tokens))
    pieces = logit_attribution(tiny_model, contrast_of(tokens), batch_size=2)
    torch.testing.assert_close(whole.values, pieces.values, atol=1e-6, rtol=1e-5)


def test_a_head_without_output_weights_writes_exactly_nothing(make_tiny, tokens):
    model = make_tiny()
    with torch.no_grad():
        model.original_model.layers[1].attn.o.weight[:, 4:8] = 0
    values = logit_attribution(model, contrast_of(tokens)).of("head", 1, 1)
    assert torch.equal(values, torch.zeros(5))


class Changed:
    """A model that differs from the one it wraps in one thing that the decomposition does not know of."""

    def __init__(self, model, *, logits=None, **attributes):
        self._model, self._logits, self._attributes = model, logits, attributes

    def __getattr__(self, name):
        return self._attributes[name] if name in self._attributes else getattr(self._model, name)

    def __call__(self, tokens):
        logits = self._model(tokens)
        return self._logits(logits) if self._logits else logits


def test_a_part_of_the_stream_that_is_not_understood_raises(tiny_model, tokens):
    model = Changed(tiny_model, b_O=torch.zeros_like(tiny_model.b_O))
    with pytest.raises(AttributionMismatch, match=r"miss the model's own logit difference by .* writes to the stream"):
        logit_attribution(model, contrast_of(tokens))


def test_a_head_of_the_model_that_is_not_understood_raises(tiny_model, tokens):
    model = Changed(tiny_model, logits=lambda logits: 1.5 * logits)
    with pytest.raises(AttributionMismatch, match="the logits are not ln_final"):
        logit_attribution(model, contrast_of(tokens))


def test_logits_that_are_not_numbers_raise(tiny_model, tokens):
    model = Changed(tiny_model, logits=lambda logits: logits * torch.nan)
    with pytest.raises(AttributionMismatch):
        logit_attribution(model, contrast_of(tokens))


def test_a_head_that_copies_the_previous_token_gets_all_that_it_writes(make_tiny):
    tokens = torch.tensor([[2, 1, 5, 6], [3, 4, 7, 0]])
    contrast = asked(clean=tokens, at=torch.tensor([2, 3]), answer=torch.tensor([1, 7]), foil=torch.tensor([5, 1]))
    result = logit_attribution(previous_token_copier(make_tiny), contrast)
    by_hand = {"token_embedding": [0, 0], "position_embedding": [0, 0], "L0H0": [3, 3], "L0H1": [0, 0]}
    by_hand |= {"L0.b_O": [0.5, -0.5], "final_bias": [0, 0]}
    found = {part.label: values.tolist() for part, values in zip(result.components, result.values, strict=True)}
    assert found == {label: pytest.approx(values) for label, values in by_hand.items()}


@pytest.fixture
def result():
    components = (Component("token_embedding"), Component("head", 0, 0), Component("head", 0, 1))
    values = torch.tensor([[1.0, 1.0], [-4.0, -2.0], [5.0, 4.0]])
    return AttributionResult(components, values, values.sum(dim=0), {"task": "parity"})


def test_top_ranks_by_absolute_mean_and_keeps_the_sign(result):
    assert result.top(2) == [("L0H1", 4.5), ("L0H0", -3.0)]


def test_frame_has_the_mean_its_share_and_n(result):
    frame = result.frame()
    assert list(frame["component"]) == ["token_embedding", "head", "head"]
    assert list(frame["site"]) == ["token_embedding", "L0H0.z", "L0H1.z"]
    assert list(frame["kind"]) == ["token_embedding", "z", "z"]
    assert list(frame["attribution"]) == [1.0, -3.0, 4.5]
    np.testing.assert_allclose(frame["share"], [0.4, -1.2, 1.8])
    np.testing.assert_allclose(frame["share"].sum(), 1.0)
    assert list(frame.columns[:3]) == ["task", "component", "site"]
    assert (frame["ci_low"] <= frame["attribution"]).all()
    assert frame["layer"].tolist() == [-1, 0, 0]


def test_a_component_that_is_not_there_is_refused_with_those_that_are(result):
    with pytest.raises(KeyError, match=r"no component L3H1; there are \['token_embedding', 'L0H0', 'L0H1'\]"):
        result.of("head", 3, 1)


def test_the_figure_has_a_bar_for_every_component_with_its_value(result):
    figure = result.figure()
    bars = {x: y for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert bars == {"token_embedding": 1.0, "L0H0.z": -3.0, "L0H1.z": 4.5}
    assert list(figure.layout.xaxis.categoryarray) == ["token_embedding", "L0H0.z", "L0H1.z"]


NORMS = ["LN", "LNPre", "RMS", "RMSPre", None]


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
