"""Weights do what the blueprint says, and nothing else."""

import math

import pytest
import torch

from cotinterp.models.handmade.blueprint import ALWAYS, Blueprint, Head, Layer, Neuron, unit, write
from cotinterp.transcripts.vocabulary import Vocabulary

LOOK = Head(
    "look",
    (({ALWAYS: 0.5, ("token", "a"): 2.0}, unit("token", "b", 3.0)), (unit("position", 2), {ALWAYS: 7.0})),
    (({("token", "b"): 4.0, ALWAYS: 1.0}, unit("seen", 1, 10.0)),),
)
IDLE = Head("idle", ((unit("token", "a", 0.0), unit("token", "a")),), ())
FIRE = Neuron({("seen", 1): 1.0, ALWAYS: -10.0}, {("logit", "c"): 0.5, ("seen", 1): -1.0})


@pytest.fixture
def blueprint():
    layers = (Layer((IDLE, LOOK), ()), Layer((), (FIRE, Neuron(unit("token", "c"), unit("logit", "a", 9.0)))))
    return Blueprint(Vocabulary(("a", "b", "c")), 4, {"seen": (1,)}, layers)


def test_the_model_has_the_size_of_its_fullest_layer(blueprint):
    cfg = write(blueprint).cfg
    assert (cfg.n_layers, cfg.d_model, cfg.n_heads, cfg.d_head, cfg.d_mlp) == (2, 3 + 4 + 1 + 3, 2, 2, 2)


def test_scores_values_and_logits_are_those_worked_out_by_hand(blueprint):
    """Tokens b a a c; at position 1 the query pair (0.5 + 2) * 3 = 7.5 wants b, position 2 adds the same to all."""
    model = write(blueprint)
    with torch.inference_mode():
        logits, cache = model.run_with_cache(torch.tensor([[1, 0, 0, 2]]))
    wants_b = math.exp(7.5)
    pattern = cache["blocks.0.attn.hook_pattern"][0, 1]
    assert pattern[1, 0].item() == pytest.approx(wants_b / (wants_b + 1))
    assert pattern[2, 0].item() == pytest.approx(wants_b / (wants_b + 2))
    assert pattern[3, 0].item() == pytest.approx(math.exp(1.5) / (math.exp(1.5) + 3))
    seen = cache["blocks.0.hook_resid_post"][0] @ blueprint.basis("seen")[0]
    torch.testing.assert_close(seen, 10 * (4 * pattern[:, 0] + 1))
    torch.testing.assert_close(logits[0, :, 2], (seen - 10) / 2)
    assert logits[0, :, 0].tolist() == [0, 0, 0, 9]


def test_an_idle_head_attends_uniformly_and_writes_nothing(blueprint):
    with torch.inference_mode():
        _, cache = write(blueprint).run_with_cache(torch.tensor([[1, 0, 2]]))
    assert cache["blocks.0.attn.hook_pattern"][0, 0, 2].tolist() == pytest.approx([1 / 3] * 3)
    assert not cache["blocks.0.attn.hook_z"][0, :, 0].any()


def test_the_model_is_in_eval_mode_and_the_global_random_state_is_left_alone(blueprint):
    before = torch.random.get_rng_state()
    assert not write(blueprint).training
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_direction_outside_the_residual_stream_is_an_error(blueprint):
    lost = Layer((IDLE,), (Neuron(unit("nowhere", 1), unit("logit", "a")),))
    with pytest.raises(KeyError, match="nowhere"):
        write(Blueprint(blueprint.vocabulary, 4, {}, (lost,)))
    with pytest.raises(KeyError, match="always"):
        write(Blueprint(blueprint.vocabulary, 4, {}, (Layer((IDLE,), (Neuron(unit("token", "a"), {ALWAYS: 1.0}),)),)))
