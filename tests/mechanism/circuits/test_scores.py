"""Scores of edges: exact ones are the runs they claim to be, estimates are a peer's and sum where they must."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import attribution_patching as peer

from cotinterp.mechanism.activations import Budget
from cotinterp.mechanism.circuits import Graph, edge_agreement, edge_scores, kept_metrics
from cotinterp.mechanism.circuits.native import NativeEdges
from cotinterp.mechanism.metrics import NoGapError, logit_diff
from cotinterp.models.native.parts import native_parts
from tests.mechanism.circuits.conftest import asked_of
from tests.mechanism.circuits.test_kept import ours, peer_metric


def swapped(contrast):
    """The same tokens the other way around."""
    return replace(contrast, clean=contrast.corrupted, corrupted=contrast.clean)


@pytest.mark.parametrize("changes", [{}, {"positional_embedding_type": "rotary"}, {"attn_only": True}], ids=str)
def test_an_exact_score_is_the_run_in_which_all_other_edges_are_kept(make_tiny, randomized, changes):
    model = randomized(make_tiny(**changes), seed=4)
    contrast = asked_of(model)
    edges = Graph.of(model).edges
    for direction, runs in (("noise", contrast), ("denoise", swapped(contrast))):
        without = kept_metrics(model, runs, [edges, *(set(edges) - {edge} for edge in edges)])
        scores = edge_scores(model, contrast, direction=direction)
        np.testing.assert_allclose(scores.change, without[1:] - without[0], atol=2e-5)
        assert np.abs(scores.change).max() > 0.1


@pytest.mark.parametrize("direction", ["noise", "denoise"])
@pytest.mark.parametrize("method", ["exact", "eap", "eap-ig"])
def test_hooks_give_what_the_weights_give(native, gpt2, question, method, direction):
    found, same = (edge_scores(model, question, method=method, direction=direction) for model in (native, gpt2))
    np.testing.assert_allclose(found.change, same.change, atol=1e-5)
    np.testing.assert_allclose(found.gap, same.gap, atol=1e-5)


def test_eap_is_that_of_transformer_lens(native, gpt2, question):
    """It takes gradients at the corrupted run, one example at a time, and scores every position."""
    found = edge_scores(native, question, method="eap", direction="denoise").change
    edges = Graph.of(native).edges
    for i in range(len(question)):
        one = question.select(torch.tensor([i]))
        config = peer.EdgeAttributionConfig(granularity="edge")
        scored = peer.attribution_patch(gpt2, one.clean, one.corrupted, peer_metric(one), config=config).edge_scores
        theirs = dict.fromkeys(edges, 0.0)
        for (writer, reader), score in scored.items():
            theirs[ours(writer, reader)] += score
        np.testing.assert_allclose(found[:, i], list(theirs.values()), atol=1e-5)


@pytest.mark.parametrize("method", ["eap", "eap-ig", "relp"])
def test_scores_of_a_linear_model_sum_to_the_gap(make_tiny, randomized, method):
    """Without norms and MLPs, with uniform attention, the edges out of embed carry it all, as do those into logits."""
    model = randomized(make_tiny(attn_only=True, normalization_type=None), seed=5).double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".attn." in name and (".q." in name or ".k." in name):
                weight.zero_()
    contrast = asked_of(model)
    for direction in ("noise", "denoise"):
        scores = edge_scores(model, contrast, method=method, direction=direction)
        for cut in ("embed", "logits"):
            cuts = np.array([cut in (edge.src.kind, edge.dest.kind) for edge in scores.edges])
            np.testing.assert_allclose(scores.change[cuts].sum(axis=0), scores.gap, atol=1e-6)
        exact = edge_scores(model, contrast, direction=direction)
        np.testing.assert_allclose(scores.change, exact.change, atol=1e-6)


def test_integrated_gradients_from_embed_close_on_the_gap(native, question):
    """As points grow, the edges out of embed sum to the gap, whatever the model."""
    from_embed = np.array([edge.src.kind == "embed" for edge in Graph.of(native).edges])
    off = []
    for steps in (1, 5, 50):
        scores = edge_scores(native, question, method="eap-ig", steps=steps)
        off.append(np.abs(scores.change[from_embed].sum(axis=0) - scores.gap).max())
    assert off[2] < off[1] < off[0]
    assert off[2] < 1e-3


def test_relp_conserves_what_is_read(make_tiny, randomized):
    """Without biases the frozen model is linear: what embed writes times its coefficients is the metric itself."""
    model = randomized(make_tiny(n_layers=3), seed=6).double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
    contrast = asked_of(model)
    at, answer, foil = contrast.at, contrast.answer, contrast.foil
    edges = NativeEdges(native_parts(model), Graph.of(model))

    def score(readout):
        return logit_diff(readout[:, None], torch.zeros_like(at), answer, foil)

    clean, rows = contrast.clean, slice(None)
    coefficients = edges.gradients(clean, clean, 0.0, at, score, linear=True)
    embedded = edges.written(clean)[0]
    total = (coefficients[rows] * embedded).sum(dim=(0, 2, 3))
    # All readers read embed, each one once: a sum over the cut behind it.
    with torch.no_grad():
        expected = logit_diff(model(clean), at, answer, foil)
    np.testing.assert_allclose(total, expected, atol=1e-6)
    plain = (edges.gradients(clean, clean, 0.0, at, score) * embedded).sum(dim=(0, 2, 3))
    assert (plain - expected).abs().max() > 0.1


def test_relp_has_no_scores_for_queries_and_keys(native, question):
    scores = edge_scores(native, question, method="relp")
    into = {which: np.abs(scores.change[[edge.input == which for edge in scores.edges]]).max() for which in "qkv"}
    assert into["q"] == into["k"] == 0 < into["v"]


def test_edges_that_carry_the_same_are_exactly_zero_and_places_split_an_edge(native, question):
    whole = edge_scores(native, question, method="eap")
    parts = [edge_scores(native, question, method="eap", place=f"position {i}").change for i in range(9)]
    np.testing.assert_allclose(sum(parts), whole.change, atol=1e-6)
    early = edge_scores(native, question, place="position 1")
    assert not early.change.any()
    assert early.place == "position 1"
    at_change = edge_scores(native, question, place="position 4")
    assert at_change.change[0].any()
    # What embed writes at the readouts is the same in both runs.
    direct = edge_scores(native, question).of("embed->logits")
    assert direct == 0


def test_passes_of_any_size_give_the_same(native, question):
    found, same = (edge_scores(native, question, budget=budget) for budget in (Budget(), Budget(batch_size=2)))
    np.testing.assert_allclose(found.change, same.change, atol=1e-5)


def test_tables_rank_by_the_rule_that_they_name(native, question):
    frame = edge_scores(native, question, ranking="signed").frame()
    assert list(frame["ranking"].unique()) == ["signed"]
    by_rank = frame.sort_values("rank")
    assert by_rank["effect"].is_monotonic_decreasing
    absolute = edge_scores(native, question)
    assert absolute.frame().sort_values("rank")["effect"].abs().is_monotonic_decreasing
    assert absolute.top(30) != absolute.top(30, "signed")
    assert len(absolute.figure().data) > 0


def test_agreement_is_perfect_with_itself_and_stated_by_kind(native, question):
    exact = edge_scores(native, question)
    table = edge_agreement(exact, exact).frame().set_index("edges")
    assert table.loc["all edges", "pearson"] == pytest.approx(1)
    assert table.loc["all edges", "max_difference"] == 0
    assert list(table.index[:4]) == ["all edges", "from embed", "from heads", "from MLPs"]
    eap = edge_scores(native, question, method="eap")
    assert 0.5 < edge_agreement(eap, exact).frame()["pearson"][0] < 0.999
    with pytest.raises(ValueError, match="give edge_scores"):
        edge_agreement(eap, eap)
    with pytest.raises(ValueError, match="different direction"):
        edge_agreement(eap, edge_scores(native, question, direction="denoise"))


def test_what_cannot_be_scored_says_why(native, gpt2, question):
    for changes, said in (
        ({"method": "gradient"}, "unknown method"),
        ({"method": "eap", "metric": "accuracy"}, "no gradient"),
        ({"ranking": "size"}, "unknown ranking"),
        ({"direction": "up"}, "unknown direction"),
        ({"method": "eap-ig", "steps": 0}, "steps"),
        ({"place": "nowhere"}, "no place"),
    ):
        with pytest.raises(ValueError, match=said):
            edge_scores(native, question, **changes)
    with pytest.raises(ValueError, match="native models"):
        edge_scores(gpt2, question, method="relp")
    with pytest.raises(NoGapError):
        edge_scores(native, replace(question, corrupted=question.clean))
