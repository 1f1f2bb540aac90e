"""Direct attribution on a foreign bridge, against the weights of the Hugging Face model inside it."""

import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attribution import AttributionMismatch, logit_attribution
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.sites import Site


class Changed:
    """A model that claims to have other weights than it has."""

    def __init__(self, model, **claims):
        self.__dict__.update(claims, model=model)

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, tokens):
        return self.model(tokens)


def test_the_parts_sum_to_what_the_hugging_face_model_says(bridge, question):
    result = logit_attribution(bridge, question)
    with torch.no_grad():
        logits = bridge.original_model(question.clean).logits
    said = logit_diff(logits, question.at, question.answer, question.foil)
    torch.testing.assert_close(result.total(), said, rtol=1e-5, atol=1e-5)
    assert float(said.abs().min()) > 0.1
    assert not result.values.requires_grad
    assert result.frame()["attribution"].sum() == pytest.approx(float(said.mean()), abs=1e-4)


def test_only_parts_that_the_architecture_has(bridge, question):
    labels = {part.label for part in logit_attribution(bridge, question).components}
    gpt2_only = {"position_embedding", "L0.b_O", "L1.b_O"}
    assert labels & gpt2_only == (gpt2_only if bridge.cfg.model_name == "GPT2LMHeadModel" else set())
    assert {"token_embedding", "L0H0", "L1H3", "L0.mlp_out", "final_bias"} <= labels


def test_each_head_by_hand(bridge, question):
    """z @ W_O, through the final norm with its scale frozen, through two rows of the unembedding."""
    inside = bridge.original_model
    layer_norm = bridge.cfg.model_name == "GPT2LMHeadModel"
    norm, eps = (inside.transformer.ln_f, 1e-5) if layer_norm else (inside.model.norm, 1e-6)
    held = activations(bridge, question.clean, [Site("resid_post", 1), Site("z", 0)], positions=question.at)
    stream = held[Site("resid_post", 1)]
    rows = inside.lm_head.weight[question.answer] - inside.lm_head.weight[question.foil]
    found = logit_attribution(bridge, question).heads()[0]
    with torch.no_grad():
        for head in range(4):
            if layer_norm:
                d_head, output = 8, inside.transformer.h[0].attn.c_proj.weight
            else:
                d_head, output = 10, inside.model.layers[0].self_attn.o_proj.weight.T
            part = held[Site("z", 0)][:, head] @ output[d_head * head : d_head * (head + 1)]
            centered = stream
            if layer_norm:
                part, centered = part - part.mean(-1, keepdim=True), stream - stream.mean(-1, keepdim=True)
            scale = (centered.square().mean(-1, keepdim=True) + eps).sqrt()
            torch.testing.assert_close(found[head], (part / scale * norm.weight * rows).sum(-1), rtol=1e-4, atol=1e-5)


def test_gpt2_unembeds_with_its_embedding(gpt2):
    assert torch.equal(gpt2.W_U.T, gpt2.W_E)


def test_forgetting_the_biases_of_gpt2_is_noticed(gpt2, tokens):
    at = torch.full((5,), 6)
    contrast = Contrast.by_position(tokens, tokens.flip(0), at, torch.arange(5), torch.arange(5) + 5)
    logit_attribution(gpt2, contrast)
    for claim in ({"b_O": None}, {"b_O": torch.zeros_like(gpt2.b_O)}, {"W_O": gpt2.W_O.flip(1)}):
        with pytest.raises(AttributionMismatch, match="parts of the residual stream"):
            logit_attribution(Changed(gpt2, **claim), contrast)


@pytest.mark.parametrize("name", ["gptj", "opt"])
def test_other_layouts_of_a_block_sum_too(make_bridge, tokens, name):
    """Attention beside the MLP, and a bias in the unembedding (GPT-J); positions that start at 2 (OPT)."""
    contrast = Contrast.by_position(tokens, tokens.flip(0), torch.full((5,), 6), torch.arange(5), torch.arange(5) + 5)
    result = logit_attribution(make_bridge(name), contrast)
    torch.testing.assert_close(result.total(), result.logit_difference, rtol=1e-5, atol=1e-5)
    assert len(result.frame()) == len(result.components)


def test_a_multiplier_on_the_branches_is_noticed(make_bridge, tokens):
    contrast = Contrast.by_position(tokens, tokens.flip(0), torch.full((5,), 6), torch.arange(5), torch.arange(5) + 5)
    with pytest.raises(AttributionMismatch, match="something besides embeddings"):
        logit_attribution(make_bridge("granite"), contrast)


def test_compatibility_mode_is_no_obstacle(tokens):
    """It folds norms and centers weights: other parts, the same differences of logits."""
    from cotinterp.calibration.peers import foreign_model

    contrast = Contrast.by_position(tokens, tokens.flip(0), torch.full((5,), 6), torch.arange(5), torch.arange(5) + 5)
    for name in ("gpt2", "llama"):
        model = foreign_model(name)
        before = logit_attribution(model, contrast)
        model.enable_compatibility_mode()
        after = logit_attribution(model, contrast)
        torch.testing.assert_close(after.total(), before.total(), rtol=1e-4, atol=1e-4)
