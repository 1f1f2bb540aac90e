"""The census: a circuit without rivals is supported, one with a stand-in or of a model where anything does is not."""

import numpy as np
import pytest
import torch

from cotinterp.calibration.ground_truth import K, handmade_models
from cotinterp.mechanism.circuits.graph import Graph
from cotinterp.mechanism.circuits.rivals import census_of, rival_census
from cotinterp.mechanism.contrast import Contrast
from cotinterp.studies.protocol import head_pairs
from tests.mechanism.circuits.made_up import CHAIN, GRAPH, HALF, IDLE, N, chain, worth


def held(edges, value=chain, *, untrained=(), **options):
    """The census of a made-up model; `untrained` pairs what the edges kept say of a model with its circuit."""
    others = [(worth(other), circuit) for other, circuit in untrained]
    return census_of(worth(value), GRAPH, edges, untrained=others, **options)


def test_a_chain_has_no_rivals_and_is_supported():
    result = held(CHAIN, n_random=50, n_swaps=10_000)
    assert (result.verdict, result.rivals_passing) == ("supported", 0)
    table = result.frame().set_index("rival")
    # Three edges, each exchanged for any of the others: all swaps there are.
    assert table.loc["swap", "tried"] == 3 * (len(GRAPH.edges) - 3)
    assert table.loc["circuit", ["passing", "closest"]].tolist() == [1, 0]
    assert table.loc["swap", "closest"] == pytest.approx(1.0)


def test_an_edge_that_another_stands_in_for_leaves_rivals():
    """Either of two edges completes the way: the swap of one for the other passes, and nothing else does."""
    (first,), (other,) = CHAIN - HALF, GRAPH.parse(["embed->L1H0.q"])
    result = held(CHAIN, lambda circuit: float(circuit >= HALF and bool({first, other} & circuit)), n_swaps=10_000)
    assert result.verdict == "partly supported"
    table = result.rival_frame()
    (swap,) = table[table["passes"] & (table["rival"] == "swap")].to_dict("records")
    assert (swap["added"], swap["left_out"]) == (other.label, first.label)


def test_padding_leaves_rivals_for_every_other_edge_in_its_place():
    result = held(CHAIN | IDLE, n_random=0, n_swaps=10_000)
    outside = len(GRAPH.edges) - 5
    assert result.rivals_passing == 2 * outside
    assert result.verdict == "partly supported"


def test_a_circuit_that_fails_is_not_supported_and_one_without_a_gap_or_a_rival_is_inconclusive():
    assert held(HALF).verdict == "not supported"
    assert held(CHAIN, lambda circuit: -chain(circuit)).verdict == "inconclusive"
    assert held(CHAIN, n_random=0, n_swaps=0).verdict == "inconclusive"


def test_circuits_of_other_methods_are_rivals_but_not_the_circuit_itself_nor_what_holds_it():
    other = HALF | IDLE
    result = held(CHAIN, rivals={"same": CHAIN, "more": CHAIN | IDLE, "method": other}, n_random=0, n_swaps=0)
    assert [(rival.kind, frozenset(rival.edges)) for rival in result.rivals] == [("method", other)]


def test_untrained_models_that_pass_take_the_support_away():
    def anything(circuit):
        return float(bool(circuit))

    found = held(CHAIN, n_swaps=5, n_random=5, untrained=[(anything, IDLE), (chain, IDLE)])
    table = found.frame().set_index("rival")
    assert table.loc["untrained", ["tried", "passing"]].tolist() == [2, 1]
    assert found.verdict == "partly supported"
    assert held(CHAIN, n_swaps=5, n_random=5, untrained=[(chain, IDLE)]).verdict == "supported"


def test_p_values_by_hand_and_the_figure():
    result = held(CHAIN, labels={"task": "none"})
    assert result.circuit.p == result.gap_p == pytest.approx(2.0**-N)
    assert "supported (none)" in result.figure().layout.title.text
    with pytest.raises(ValueError, match="at least one edge"):
        held(())


def test_the_reader_has_no_rival_and_its_model_with_shuffled_weights_has_no_gap():
    (model,) = (model for model in handmade_models() if model.name == "reader (totals)")
    edges = Graph.of(model.model).parse(["embed->L1H0.v", "L1H0->L1.mlp", "L1.mlp->logits"])
    contrast = Contrast.from_pairs(head_pairs(model, 16, k=K))
    assert rival_census(model.model, contrast, edges, n_random=40, n_swaps=40).verdict == "supported"
    generator, shuffled = torch.Generator().manual_seed(0), handmade_models()[0].model
    with torch.no_grad():
        for weight in shuffled.parameters():
            weight.copy_(weight.flatten()[torch.randperm(weight.numel(), generator=generator)].view_as(weight))
    found = rival_census(shuffled, contrast, edges, n_random=5, n_swaps=5)
    assert found.verdict in ("inconclusive", "not supported")
    assert np.isfinite(found.circuit.p)
