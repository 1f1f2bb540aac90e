"""Continuous thoughts: what stands at a dot, that nothing else changes, and who reads such a model."""

import numpy as np
import pytest
import torch

from cotinterp.models.build import THOUGHT, as_bridge, build_module, has_thoughts
from cotinterp.models.decoding import greedy, prefixes, verified
from cotinterp.models.native.parts import native_parts, why_not_native
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

Z6 = get_task("z6")
VOCABULARY = Vocabulary.of(Z6)
SPEC = ModelSpec(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=32, thoughts=True)
PLAIN = SPEC.model_copy(update={"thoughts": False})


def module_of(spec):
    """Large weights, so that what is fed back matters."""
    module = build_module(spec, len(VOCABULARY), seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return module.eval()


@pytest.fixture(scope="module")
def batch():
    problems = [
        one for k in (2, 3, 5) for one in sample_problems(Z6, k, 4, split="train", rng=np.random.default_rng(k))
    ]
    return collate([render(Z6, problem, "dots") for problem in problems], VOCABULARY)


def test_the_dot_is_the_same_token_in_every_task():
    assert {Vocabulary.of(get_task(name)).token(".") for name in ("z6", "digit-sum", "s3")} == {THOUGHT}


@pytest.mark.parametrize("positions", ["standard", "rotary", "none"])
def test_a_dot_reads_the_last_state_of_the_place_before_it(positions):
    """Thought by thought, by the plain model's own parts; a dot at the very beginning has nothing before it."""
    thinking, plain = (module_of(spec.model_copy(update={"positions": positions})) for spec in (SPEC, PLAIN))
    tokens = torch.tensor([[THOUGHT, 9, 10, THOUGHT, THOUGHT, 9, THOUGHT, 10]])

    def last_states(inputs):
        kept = []
        handle = plain.ln_out.register_forward_hook(lambda module, given, states: kept.append(states))
        plain(inputs_embeds=inputs)
        handle.remove()
        return kept[0]

    with torch.no_grad():
        inputs = plain.tok_embed(tokens)
        for place in (3, 4, 6):
            inputs[0, place] = last_states(inputs)[0, place - 1]
        expected = plain(inputs_embeds=inputs)
        found = thinking(tokens)
        assert (found - plain(tokens)).abs().amax() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_without_dots_it_is_the_plain_model_and_with_them_the_bridge_thinks_too(batch):
    tokens = batch.tokens
    thinking, plain = module_of(SPEC), module_of(PLAIN)
    no_dots = torch.where(tokens == THOUGHT, 9, tokens)
    assert torch.equal(thinking(no_dots), plain(no_dots))
    logits = thinking(tokens)
    padded = torch.cat([tokens, torch.full((len(tokens), 3), THOUGHT)], dim=1)
    torch.testing.assert_close(thinking(padded)[:, : tokens.shape[1]], logits, atol=1e-5, rtol=1e-5)
    bridge = as_bridge(thinking)
    torch.testing.assert_close(bridge(tokens), logits, atol=1e-5, rtol=1e-5)
    assert has_thoughts(bridge)
    assert not has_thoughts(plain)


def test_no_fast_path_reads_it_as_if_it_had_no_thoughts():
    for model in (module_of(SPEC), as_bridge(module_of(SPEC))):
        assert native_parts(model) is None
        assert why_not_native(model) == "its last states are fed back as continuous thoughts"
        assert native_parts(model, thoughts=True).thought == THOUGHT


def test_what_it_writes_is_what_it_writes_step_by_step(batch):
    """After one dot that is given; the guess of `verified` holds more, which the model need not write."""
    bridge = as_bridge(module_of(SPEC))
    start = prefixes(bridge, batch, given=batch.where("filler", 1) + 1, max_new=12)
    written = greedy(bridge, start, stop=VOCABULARY.end)
    assert verified(bridge, start, stop=VOCABULARY.end) == written
    plain = as_bridge(module_of(PLAIN))
    assert greedy(plain, start, stop=VOCABULARY.end) != written


def test_a_shape_without_thoughts_is_what_it_was():
    assert "thoughts" not in PLAIN.model_dump()
    assert SPEC.model_dump()["thoughts"] is True
    assert ModelSpec.model_validate_json(SPEC.model_dump_json()) == SPEC != PLAIN
