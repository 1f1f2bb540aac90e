"""Runs in which only some edges carry the clean value: their ends, a circuit by hand, hooks and a peer."""

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import attribution_patching as peer

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.circuits import Edge, Graph, kept_metrics, run_kept
from cotinterp.mechanism.metrics import logit_diff
from tests.mechanism.circuits.conftest import asked_of


def metric(model, contrast, tokens):
    with torch.no_grad():
        return logit_diff(model(tokens), contrast.at, contrast.answer, contrast.foil).numpy()


def some_circuits(graph, n=5, seed=0):
    rng = np.random.default_rng(seed)
    return [[edge for edge in graph.edges if rng.random() < share] for share in np.linspace(0.2, 0.9, n)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"positional_embedding_type": "rotary"},
        {"attn_only": True},
        {"normalization_type": "RMS"},
        {"normalization_type": None, "n_layers": 1},
    ],
    ids=str,
)
def test_all_edges_are_the_clean_run_and_none_the_corrupted_one(make_tiny, randomized, changes):
    model = randomized(make_tiny(**changes), seed=2)
    contrast = asked_of(model)
    found = kept_metrics(model, contrast, [Graph.of(model).edges, []])
    for run, tokens in zip(found, (contrast.clean, contrast.corrupted), strict=True):
        np.testing.assert_allclose(run, metric(model, contrast, tokens), atol=1e-5)


def test_an_edge_into_a_linear_readout_adds_exactly_what_its_source_writes(make_tiny, randomized):
    model = randomized(make_tiny(normalization_type=None), seed=2)
    contrast = asked_of(model, changed=(5,)).select(torch.tensor([4]))
    embedded = [model(tokens, stop_at_layer=0)[0, 5] for tokens in (contrast.corrupted, contrast.clean)]
    direction = model.W_U[:, contrast.answer[0]] - model.W_U[:, contrast.foil[0]]
    added = float(((embedded[1] - embedded[0]) @ direction).detach())
    found = run_kept(model, contrast, [Edge.parse("embed->logits")])
    np.testing.assert_allclose(found - metric(model, contrast, contrast.corrupted), added, atol=1e-5)


def test_hooks_give_what_the_weights_give(native, gpt2, question):
    circuits = some_circuits(Graph.of(native))
    found = kept_metrics(native, question, circuits)
    np.testing.assert_allclose(found, kept_metrics(gpt2, question, circuits), atol=1e-5)
    assert found.std(axis=0).mean() > 0.03
    assert not any(bool(gpt2.cfg.__dict__.get(flag)) for flag in ("use_split_qkv_input", "use_attn_result"))


def test_passes_of_any_size_give_the_same(native, question):
    circuits = some_circuits(Graph.of(native))
    one_by_one = kept_metrics(native, question, circuits, budget=Budget(batch_size=2))
    np.testing.assert_allclose(kept_metrics(native, question, circuits), one_by_one, atol=1e-5)


def test_pruned_circuits_do_what_they_did(native, question):
    graph = Graph.of(native)
    circuits = some_circuits(graph, n=3, seed=1)
    pruned = [graph.connected(circuit) for circuit in circuits]
    assert len(pruned[0]) < len(circuits[0])
    found, same = (kept_metrics(native, question, each) for each in (circuits, pruned))
    np.testing.assert_allclose(found, same, atol=1e-5)


def test_transformer_lens_ablates_the_same_edges(native, gpt2, question):
    """Its graph has a node for every position; a circuit here keeps an edge at all of them."""
    graph = Graph.of(native)
    circuit = graph.parse(["embed->L0H1.v", "L0H1->L1.mlp", "embed->L1H2.k", "embed->L1H2.v", "L1H2->logits"])
    circuit |= graph.parse(["L1.mlp->logits", "embed->L0.mlp", "L0.mlp->L1H2.q"])
    one = question.select(torch.tensor([2]))
    theirs = peer.faithfulness(gpt2, one.clean, one.corrupted, peer_metric(one), peer_edges(circuit, gpt2, one))
    ends = [metric(native, one, tokens) for tokens in (one.corrupted, one.clean)]
    ours = (run_kept(native, one, circuit) - ends[0]) / (ends[1] - ends[0])
    np.testing.assert_allclose(ours, theirs.recovered, atol=1e-4)


def peer_metric(contrast):
    at, answer, foil = (int(x[0]) for x in (contrast.at, contrast.answer, contrast.foil))
    return lambda logits: logits[0, at, answer] - logits[0, at, foil]


def peer_edges(circuit, model, contrast):
    """Their edges of these, at every position."""
    scored = peer.attribution_patch(
        model,
        contrast.clean,
        contrast.corrupted,
        peer_metric(contrast),
        config=peer.EdgeAttributionConfig(granularity="edge"),
    )
    return [pair for pair in scored.edge_scores if ours(*pair) in circuit]


def ours(writer, reader):
    """The edge of two of their nodes."""
    src = {"embed": "embed", "attn_head_out": f"L{writer.layer}H{writer.head}", "mlp_out": f"L{writer.layer}.mlp"}
    dest = {"mlp_in": f"L{reader.layer}.mlp", "logits": "logits"}
    head = f"L{reader.layer}H{reader.head}.{reader.kind[0]}"
    return Edge.parse(f"{src[writer.kind]}->{dest.get(reader.kind, head)}")


def test_native_models_have_no_hooks_for_edges_and_say_so(native, question):
    with pytest.raises(ValueError, match="use_split_qkv_input"):
        kept_metrics(native, question, [[]], by_hooks=True)
