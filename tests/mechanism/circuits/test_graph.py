"""Edges by name, in order, and as many as there must be."""

from itertools import pairwise

import pytest

from cotinterp.mechanism.circuits import Edge, Graph, Node


def test_two_layers_of_two_heads_have_the_edges_that_can_be_counted_by_hand():
    graph = Graph(n_layers=2, n_heads=2)
    # Layer 0: 6 inputs of heads from embed; the MLP from 3. Layer 1: 6 from 4 each; the MLP from 6. Logits from 7.
    assert len(graph.edges) == 6 + 3 + 24 + 6 + 7
    assert len(Graph(2, 2, mlps=False).edges) == 6 + 18 + 5
    assert " ".join(map(str, graph.nodes)) == "embed L0H0 L0H1 L0.mlp L1H0 L1H1 L1.mlp logits"
    assert [edge.label for edge in graph.edges[:4]] == [
        "embed->L0H0.q",
        "embed->L0H0.k",
        "embed->L0H0.v",
        "embed->L0H1.q",
    ]


def test_every_edge_is_read_back_from_its_label_and_has_its_own_place():
    graph = Graph(2, 3)
    assert tuple(Edge.parse(str(edge)) for edge in graph.edges) == graph.edges == tuple(sorted(graph.edges))
    assert graph.mask(graph.edges).sum() == len(graph.edges) == len(set(graph.places.values()))
    assert graph.parse(["L0H1 -> L1H2.k"]) == {Edge(Node("head", 0, 1), Node("head", 1, 2), "k")}
    assert all(earlier < later for earlier, later in pairwise(graph.nodes))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("L1H0->L0H0.q", "cannot reach"),
        ("L0H0->L0H1.v", "cannot reach"),
        ("logits->L0H1.v", "cannot reach"),
        ("L0H0->L1H0", "which input"),
        ("L0H0", "names no edge"),
        ("L0H0->L0.mlp.q", "has no input"),
        ("L0X->L0.mlp", "names no node"),
    ],
)
def test_what_is_no_edge_says_why(label, said):
    with pytest.raises(ValueError, match=said):
        Edge.parse(label)


def test_edges_of_another_model_are_refused():
    with pytest.raises(KeyError, match="1 layers of 2 heads, with MLPs"):
        Graph(1, 2).mask([Edge.parse("L0H2->logits")])


def test_what_lies_on_no_way_from_embed_to_logits_is_pruned():
    graph = Graph(2, 2)
    chain = ["embed->L0H0.v", "L0H0->L1.mlp", "L1.mlp->logits"]
    dead = ["embed->L0H1.k", "L0.mlp->logits", "L0H0->L1H1.q", "L1H0->L1.mlp"]
    assert graph.connected(graph.parse([*chain, *dead])) == graph.parse(chain)
    assert graph.connected(graph.parse(dead)) == frozenset()
    assert graph.connected(graph.edges) == frozenset(graph.edges)


def test_blocks_that_are_no_sequence_of_attention_and_mlp_are_refused():
    from cotinterp.calibration.peers import foreign_model

    with pytest.raises(ValueError, match="4 heads share 2 keys and values"):
        Graph.of(foreign_model("llama"))
