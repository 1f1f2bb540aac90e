"""The five tests: hand-worked values, the known circuit passes, others fail for the reason that they should."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.calibration.ground_truth import K, handmade_models
from cotinterp.mechanism.circuits import kept_metrics
from cotinterp.mechanism.circuits.graph import Edge, Graph
from cotinterp.mechanism.circuits.validity import (
    TESTS,
    circuit_validity,
    equivalence_p,
    gap_p,
    random_circuits,
    rank_p,
    validity_of,
)
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.metrics import NoGapError
from cotinterp.studies.protocol import head_pairs
from tests.mechanism.circuits.made_up import CHAIN, GRAPH, HALF, IDLE, N, additive, chain, worth


def held(edges, value=chain, n=N, **changes):
    return validity_of(worth(value, n), GRAPH, edges, **changes)


def column(result, name):
    return dict(zip(result.frame()["test"], result.frame()[name], strict=True))


def test_the_chain_passes_every_test_with_the_p_values_worked_out_by_hand():
    result = held(CHAIN)
    assert result.valid
    assert tuple(result.frame()["test"]) == TESTS
    p, adjusted, statistic = (column(result, name) for name in ("p", "p_adjusted", "statistic"))
    assert p["gap"] == p["equivalence"] == pytest.approx(2.0**-N)
    # No draw of 99 reaches it, and Holm multiplies the second smallest of four by three.
    assert p["minimality"] == p["sufficiency"] == p["partial necessity"] == 0.01
    assert adjusted["sufficiency"] == pytest.approx(0.03)
    assert adjusted["equivalence"] == pytest.approx(4 * 2.0**-N)
    assert statistic["minimality"] == pytest.approx(1.0)
    assert statistic["partial necessity"] == pytest.approx(1.0)
    assert statistic["gap"] == pytest.approx(float(np.median(result.model) + 1) / 2)
    assert statistic["equivalence"] == statistic["sufficiency"] == 0
    assert result.faithfulness == pytest.approx(1.0)


def failing(result):
    return {test for test, passes in result.passes.items() if not passes}


@pytest.mark.parametrize(
    ("edges", "fails"),
    [
        (CHAIN | IDLE, {"minimality"}),
        (HALF, {"equivalence", "minimality", "sufficiency", "partial necessity"}),
        (IDLE, {"independence", "equivalence", "minimality", "sufficiency", "partial necessity"}),
    ],
)
def test_what_fails_for_a_padded_a_halved_and_an_idle_circuit(edges, fails):
    """The edge that half a chain lacks lies outside of it, and to lose that one costs as much."""
    assert failing(held(edges)) == fails
    assert not held(edges).valid


def test_the_score_without_the_circuit_must_not_depend_on_that_of_the_model():
    both = held(CHAIN)
    rng = np.random.default_rng(1)
    for without, passes in ((both.model - 2, False), (np.zeros(N), True), (rng.normal(size=N), True)):
        kept = worth(chain)

        def scores(circuits, kept=kept, without=without):
            outside = frozenset(GRAPH.edges) - CHAIN
            return np.array([without if circuit == outside else kept([circuit])[0] for circuit in circuits])

        assert validity_of(scores, GRAPH, CHAIN).passes["independence"] == passes


def test_dependence_is_the_textbook_formula():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))

    def gram(values):
        distance = np.abs(values[:, None] - values)
        kernel = np.exp(-((distance / np.median(distance[distance > 0])) ** 2) / 2)
        return np.eye(12) - 1 / 12, kernel

    (h, k), (_, m) = gram(x), gram(y)

    def hsic(a, b):
        return np.trace(a @ h @ b @ h)

    result = replace(held(CHAIN, n=12), without=x, model=y, corrupted=y - 1)
    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert column(result, "statistic")["independence"] == pytest.approx(expected, abs=1e-3)
    same = replace(result, without=y)
    assert column(same, "statistic")["independence"] == pytest.approx(1.0)


def test_signs_and_ranks_by_hand():
    zeros, ones = np.zeros(5), np.ones(5)
    assert gap_p(ones, zeros) == 1 / 32
    assert gap_p(zeros, ones) == 1
    assert gap_p(np.array([1, 1, 1, 1, -1.0]), zeros) == pytest.approx(6 / 32)
    within = np.array([1.05, 0.95, 1, 1, 2])
    assert equivalence_p(within, ones, zeros) == pytest.approx(6 / 32)
    assert equivalence_p(within, ones, zeros, margin=0.01) == pytest.approx((10 + 10 + 5 + 1 - 10 + 10) / 32)
    assert equivalence_p(zeros, zeros, zeros) == 1
    assert rank_p(np.array([1.0, 2.0, 3.0]), 2.5) == 0.5
    assert rank_p(np.array([1.0, 2.0, 3.0]), 3.0) == 0.5, "a tie counts against the circuit"
    assert rank_p(np.array([]), 1.0) == 1


def test_the_published_preference_passes_where_margins_do_not_and_fails_where_they_do():
    """4 of 4 wins are 0.6^4 + 0.4^4 likely at the edge of the null; a circuit that is always 1e-3 worse is rejected."""
    few = validity_of(worth(chain, n=4), GRAPH, CHAIN)
    better = replace(few, circuit=few.model + 1)
    assert better.preference == (1.0, pytest.approx(0.6**4 + 0.4**4))
    assert not better.passes["equivalence"]
    many = held(CHAIN)
    assert many.preference == (0.5, 1.0)
    worse = replace(many, circuit=many.model - 2e-3)
    assert worse.preference[1] < 1e-3
    assert worse.passes["equivalence"]


def test_edges_have_p_values_of_their_own_and_holm_over_them():
    table = held(CHAIN | IDLE).edge_frame().set_index("edge")
    idle, needed = [[edge.label for edge in sorted(edges)] for edges in (IDLE, CHAIN)]
    assert (table.loc[idle, "change"] == 0).all()
    assert (table.loc[idle, "p"] == 1).all()
    assert (table.loc[needed, "p"] == 0.01).all()
    assert table.loc[needed, "p_adjusted"].tolist() == pytest.approx([0.05, 0.05, 0.05])


def test_ties_with_random_circuits_count_against_sufficiency():
    """Of a model without a circuit, where any edge does, no circuit is better than a random one."""
    result = held(CHAIN, value=lambda circuit: float(bool(circuit)))
    assert column(result, "p")["sufficiency"] == 1
    assert not result.passes["minimality"]


def test_random_circuits_are_found_sufficient_at_no_more_than_the_level():
    hits, trials = {0.05: 0, 0.2: 0}, 100
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        (edges,) = random_circuits(GRAPH, 6, 1, rng)
        result = validity_of(worth(additive(seed), n=6), GRAPH, edges, n_random=19, generator=rng)
        for level in hits:
            hits[level] += column(result, "p")["sufficiency"] <= level
    # 3 standard errors of a rate at the level; and not far below it, for the test is exact.
    assert hits[0.05] <= 5 + 3 * 2.2
    assert 20 - 3 * 4 <= hits[0.2] <= 20 + 3 * 4


@pytest.mark.parametrize("n_edges", [3, 7, 20, len(GRAPH.edges)])
def test_random_circuits_have_their_size_and_lie_on_ways_to_the_logits(n_edges):
    drawn = random_circuits(GRAPH, n_edges, 20, np.random.default_rng(0))
    assert {len(circuit) for circuit in drawn} == {n_edges}
    assert sum(GRAPH.connected(circuit) == circuit for circuit in drawn) >= 18
    assert n_edges == len(GRAPH.edges) or len(set(drawn)) > 1


def test_random_circuits_outside_of_another_share_nothing_with_it_even_where_no_way_is_left():
    into_logits = frozenset(edge for edge in GRAPH.edges if edge.dest.kind == "logits")
    for outside in (CHAIN, into_logits):
        (drawn,) = random_circuits(GRAPH, 5, 1, np.random.default_rng(0), outside=outside)
        assert len(drawn) == 5
        assert not drawn & outside


def test_the_whole_graph_is_equivalent_and_nothing_else():
    result = held(GRAPH.edges)
    assert failing(result) >= {"minimality", "sufficiency", "partial necessity"}
    assert result.passes["equivalence"]
    assert "nothing to compare" in column(result, "note")["minimality"]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"edges": ()}, ValueError, "at least one edge"),
        ({"n_random": 0}, ValueError, "must be positive"),
        ({"level": 1.0}, ValueError, "level must lie"),
        ({"margin": 0.0}, ValueError, "margin must lie"),
        ({"edges": [Edge.parse("embed->L7.mlp")]}, KeyError, "is no edge"),
        ({"value": lambda circuit: 0.0}, NoGapError, "nothing for a circuit to explain"),
    ],
)
def test_bad_input_is_refused(changes, error, words):
    with pytest.raises(error, match=words):
        held(**{"edges": CHAIN, **changes})


def test_equal_generators_give_equal_results_and_figures_are_drawn():
    one, other = (held(CHAIN, generator=np.random.default_rng(3), labels={"task": "none"}) for _ in range(2))
    assert one.frame().equals(other.frame())
    assert one.frame()["task"].tolist() == ["none"] * 6
    passing, failing = one.figure().data
    assert (len(passing.x), len(failing.x)) == (6, 0)


@pytest.fixture(scope="module")
def known():
    """The reader, pairs in which one written total differs, and the way by which this reaches the next one."""
    (model,) = (model for model in handmade_models() if model.name == "reader (totals)")
    edges = Graph.of(model.model).parse(["embed->L1H0.v", "L1H0->L1.mlp", "L1.mlp->logits"])
    return model.model, Contrast.from_pairs(head_pairs(model, 16, k=K)), edges


def test_the_true_circuit_of_the_reader_passes_and_padded_it_does_not(known):
    model, contrast, edges = known
    result = circuit_validity(model, contrast, edges)
    assert result.valid
    np.testing.assert_allclose(result.circuit, kept_metrics(model, contrast, [edges])[0], atol=1e-5)
    (idle,) = random_circuits(Graph.of(model), 3, 1, np.random.default_rng(1), outside=edges)
    assert failing(circuit_validity(model, contrast, edges | idle)) == {"minimality"}


def test_the_model_is_left_as_it_was(known):
    model, contrast, edges = known
    before = [weight.clone() for weight in model.parameters()]
    circuit_validity(model, contrast, edges, n_random=2)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
