"""What a blueprint says of its model, its neurons evaluated on paper, and the weights that it becomes."""

import math
from itertools import product

import pytest
import torch

from cotinterp.models.handmade.blueprint import (
    ALWAYS,
    Blueprint,
    Head,
    Layer,
    Neuron,
    all_of,
    bumps,
    copies,
    prompt_end_head,
    unit,
    wanted_head,
    write,
)
from cotinterp.transcripts.vocabulary import Vocabulary

HEAD = Head("copy", (({ALWAYS: 1.0}, unit("token", "b")),), ((unit("position", 1), unit("seen", "b")),))
NEURON = Neuron(unit("seen", "b"), {("logit", "a"): 1.0, ("left over", 1): 2.0})


@pytest.fixture
def blueprint():
    scratch = {"seen": ("a", "b"), "left over": (1,)}
    return Blueprint(Vocabulary(("a", "b", "c")), 2, scratch, (Layer((), ()), Layer((HEAD,), (NEURON,))))


def test_subspaces_divide_the_residual_stream(blueprint):
    names = ("token", "position", "seen", "left over", "logit")
    assert [len(blueprint.basis(name)) for name in names] == [3, 2, 2, 1, 3]
    assert torch.equal(torch.cat([blueprint.basis(name) for name in names]), torch.eye(11))
    assert blueprint.index["seen", "b"] == 6


def test_heads_are_named(blueprint):
    assert blueprint.heads == {"copy": (1, 0)}


def test_what_nobody_reads_is_known(blueprint):
    assert blueprint.unread == ("left over",)


def test_an_unknown_subspace_names_those_there(blueprint):
    with pytest.raises(KeyError, match="no residual subspace 'sene'; this model has token, position, seen, left over"):
        blueprint.basis("sene")


def written(neurons, state):
    """What ReLU neurons write, summed by hand."""
    total = {}
    for neuron in neurons:
        fired = max(0.0, sum(amount * {**state, ALWAYS: 1.0}.get(d, 0.0) for d, amount in neuron.when.items()))
        for direction, amount in neuron.then.items():
            total[direction] = total.get(direction, 0.0) + fired * amount
    return total


@pytest.mark.parametrize("n", [1, 2, 4])
def test_an_and_neuron_is_one_where_all_are_one(n):
    directions = [("flag", i) for i in range(n)]
    neuron = all_of(directions, unit("out", 1, 3.0))
    for bits in product((0.0, 1.0), repeat=n):
        out = written([neuron], dict(zip(directions, bits, strict=True)))
        assert out[("out", 1)] == 3.0 * all(bits)


VALUES = [unit("out", "even", 5.0), unit("out", "odd", 5.0), unit("out", "even", 5.0), unit("out", "odd", 5.0)]


@pytest.mark.parametrize("s", range(4))
def test_bumps_write_the_value_of_their_integer(s):
    out = written(bumps(unit("s", 1), [("gate", 1)], VALUES), {("s", 1): float(s), ("gate", 1): 1.0})
    assert out[("out", "even")] == 5.0 * (s % 2 == 0)
    assert out[("out", "odd")] == 5.0 * (s % 2 == 1)


def test_between_two_integers_bumps_write_the_mixture():
    out = written(bumps(unit("s", 1), [], VALUES), {("s", 1): 1.25})
    assert out == pytest.approx({("out", "even"): 1.25, ("out", "odd"): 3.75})


@pytest.mark.parametrize("open_gates", [(), (("gate", 1),), (("gate", 2),)])
@pytest.mark.parametrize("s", range(4))
def test_a_gate_that_is_not_wholly_open_keeps_all_bumps_silent(s, open_gates):
    neurons = bumps(unit("s", 1), [("gate", 1), ("gate", 2)], VALUES)
    out = written(neurons, {("s", 1): float(s), **dict.fromkeys(open_gates, 1.0)})
    assert set(out.values()) == {0.0}


def test_one_neuron_for_each_knot():
    assert len(bumps(unit("s", 1), [], VALUES)) == len(VALUES) + 1


def score(head, query, key):
    """Attention score of one source, by hand."""

    def read(vector, state):
        return sum(amount * {**state, ALWAYS: 1.0}.get(direction, 0.0) for direction, amount in vector.items())

    return sum(read(q, query) * read(k, key) for q, k in head.attend)


def test_a_wanting_head_prefers_what_it_wants_to_its_rest_and_its_rest_to_all_else():
    head = wanted_head("total", "wanted", range(5), copies("token", "total", "01"))
    start, other = {("token", "<"): 1.0, ("position", 0): 1.0}, {("token", "1"): 1.0, ("position", 3): 1.0}
    wanting = {("wanted", 3): 1.0}
    assert [score(head, wanting, key) for key in (other, start, {("position", 2): 1.0})] == [64.0, 32.0, 0.0]
    assert [score(head, {}, key) for key in (other, start)] == [0.0, 32.0]


def test_the_prompt_end_head_reads_the_number_of_operands_off_the_position():
    head = prompt_end_head({2: 4, 3: 6})
    assert head.move == ((unit("position", 4), unit("k", 2)), (unit("position", 6), unit("k", 3)))
    assert score(head, {}, {("token", ">"): 1.0}) - score(head, {}, {("token", "<"): 1.0}) == 32.0


LOOK = Head(
    "look",
    (({ALWAYS: 0.5, ("token", "a"): 2.0}, unit("token", "b", 3.0)), (unit("position", 2), {ALWAYS: 7.0})),
    (({("token", "b"): 4.0, ALWAYS: 1.0}, unit("seen", 1, 10.0)),),
)
IDLE = Head("idle", ((unit("token", "a", 0.0), unit("token", "a")),), ())
FIRE = Neuron({("seen", 1): 1.0, ALWAYS: -10.0}, {("logit", "c"): 0.5, ("seen", 1): -1.0})


@pytest.fixture
def to_write():
    layers = (Layer((IDLE, LOOK), ()), Layer((), (FIRE, Neuron(unit("token", "c"), unit("logit", "a", 9.0)))))
    return Blueprint(Vocabulary(("a", "b", "c")), 4, {"seen": (1,)}, layers)


def test_the_model_has_the_size_of_its_fullest_layer(to_write):
    cfg = write(to_write).cfg
    assert (cfg.n_layers, cfg.d_model, cfg.n_heads, cfg.d_head, cfg.d_mlp) == (2, 3 + 4 + 1 + 3, 2, 2, 2)


def test_scores_values_and_logits_are_those_worked_out_by_hand(to_write):
    """Tokens b a a c; at position 1 the query pair (0.5 + 2) * 3 = 7.5 wants b, position 2 adds the same to all."""
    model = write(to_write)
    with torch.inference_mode():
        logits, cache = model.run_with_cache(torch.tensor([[1, 0, 0, 2]]))
    wants_b = math.exp(7.5)
    pattern = cache["blocks.0.attn.hook_pattern"][0, 1]
    assert pattern[1, 0].item() == pytest.approx(wants_b / (wants_b + 1))
    assert pattern[2, 0].item() == pytest.approx(wants_b / (wants_b + 2))
    assert pattern[3, 0].item() == pytest.approx(math.exp(1.5) / (math.exp(1.5) + 3))
    seen = cache["blocks.0.hook_resid_post"][0] @ to_write.basis("seen")[0]
    torch.testing.assert_close(seen, 10 * (4 * pattern[:, 0] + 1))
    torch.testing.assert_close(logits[0, :, 2], (seen - 10) / 2)
    assert logits[0, :, 0].tolist() == [0, 0, 0, 9]


def test_an_idle_head_attends_uniformly_and_writes_nothing(to_write):
    with torch.inference_mode():
        _, cache = write(to_write).run_with_cache(torch.tensor([[1, 0, 2]]))
    assert cache["blocks.0.attn.hook_pattern"][0, 0, 2].tolist() == pytest.approx([1 / 3] * 3)
    assert not cache["blocks.0.attn.hook_z"][0, :, 0].any()


def test_the_model_is_in_eval_mode_and_the_global_random_state_is_left_alone(to_write):
    before = torch.random.get_rng_state()
    assert not write(to_write).training
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_direction_outside_the_residual_stream_is_an_error(to_write):
    lost = Layer((IDLE,), (Neuron(unit("nowhere", 1), unit("logit", "a")),))
    with pytest.raises(KeyError, match="nowhere"):
        write(Blueprint(to_write.vocabulary, 4, {}, (lost,)))
    with pytest.raises(KeyError, match="always"):
        write(Blueprint(to_write.vocabulary, 4, {}, (Layer((IDLE,), (Neuron(unit("token", "a"), {ALWAYS: 1.0}),)),)))
