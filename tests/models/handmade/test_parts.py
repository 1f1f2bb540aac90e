"""Neurons, evaluated on paper."""

from itertools import product

import pytest

from cotinterp.models.handmade.blueprint import ALWAYS, all_of, bumps, copies, prompt_end_head, unit, wanted_head


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
