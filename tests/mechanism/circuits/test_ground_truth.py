"""Edges of handmade models are known: scores must find them, and say what they cannot see."""

from dataclasses import replace

import numpy as np
import pytest

from cotinterp.mechanism.circuits import Graph, edge_auroc, edge_scores, faithfulness_curve, greedy_circuit, run_kept
from cotinterp.mechanism.contrast import Contrast
from cotinterp.models.handmade import parallel, reader, recomputer
from cotinterp.tasks import get_task
from cotinterp.transcripts.pairs import operand_pairs, written_total_pairs
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

TASK, K, N = get_task("z6"), 4, 12
WRITTEN = ("embed->L1H0.v", "L1H0->L1.mlp", "L1.mlp->logits")
OPERAND = ("embed->L1H1.v", "L1H1->L1.mlp", "L1.mlp->logits")
BACKUP = ("embed->L1H2.v", "L1H2->L1.mlp")


def problems():
    return sample_problems(TASK, K, N, split="heldout", rng=np.random.default_rng(0))


def written(step=2):
    rng = np.random.default_rng(1)
    readout = (Role.TOTAL, step + 1)
    return Contrast.from_pairs(written_total_pairs(TASK, problems(), "totals", step=step, rng=rng, readout=readout))


def operand(regime="totals", index=1):
    return Contrast.from_pairs(operand_pairs(TASK, problems(), regime, index=index, rng=np.random.default_rng(1)))


@pytest.mark.parametrize("direction", ["noise", "denoise"])
@pytest.mark.parametrize(
    ("model", "contrast", "known"),
    [
        (reader(TASK, "totals", (2, K)), written(), WRITTEN),
        (reader(TASK, "totals", (2, K), decoy=True), written(), WRITTEN),
        (reader(TASK, "totals", (2, K)), operand(), OPERAND),
        (recomputer(TASK, "totals", (2, K), decoy=True), operand(), OPERAND),
        (parallel(TASK, (2, K), decoy=True), operand("direct"), ("embed->L0H0.v", "L0H0->L0.mlp", "L0.mlp->logits")),
    ],
    ids=["reader", "reader with decoy", "reader of operands", "recomputer with decoy", "parallel with decoy"],
)
def test_exact_patching_finds_the_edges_of_a_handmade_model_and_no_others(model, contrast, known, direction):
    found = edge_scores(model, contrast, direction=direction)
    assert edge_auroc(found, known).auroc == 1.0
    assert found.top(len(known)) == Graph.of(model).parse(known)
    others = [
        effect for edge, effect in zip(found.edges, found.effects().effect, strict=True) if str(edge) not in known
    ]
    assert np.abs(others).max() < 1e-4
    # In a chain each link carries everything.
    assert [found.of(edge) for edge in known] == pytest.approx([1.0] * len(known), abs=1e-4)


def test_the_known_circuit_keeps_the_behavior_and_lacks_it_without_a_link():
    model, contrast = reader(TASK, "totals", (2, K)), written()
    graph = Graph.of(model)
    clean, corrupted = (run_kept(model, contrast, edges) for edges in (graph.edges, []))
    np.testing.assert_allclose(run_kept(model, contrast, graph.parse(WRITTEN)), clean, atol=1e-4)
    for missing in WRITTEN:
        broken = graph.parse(set(WRITTEN) - {missing})
        np.testing.assert_allclose(run_kept(model, contrast, broken), corrupted, atol=1e-4)
    curve = faithfulness_curve(model, contrast, edge_scores(model, contrast), sizes=(1, 2, 3, 4))
    table = curve.frame()
    np.testing.assert_allclose(table["faithfulness"], [0, 0, 0, 1, 1, 1], atol=1e-4)
    assert list(table["accuracy"]) == [0, 0, 0, 1, 1, 1]
    assert list(table["connected"]) == [0, 0, 0, 3, 3, len(graph.connected(graph.edges))]
    n = len(graph.edges)
    assert curve.cpr == pytest.approx(1 - 2.5 / n, abs=1e-4)
    assert curve.cmd == pytest.approx(2.5 / n, abs=1e-4)
    assert curve.smallest() == graph.parse(WRITTEN)
    assert greedy_circuit(model, contrast) == graph.parse(WRITTEN)


def forgotten(contrast):
    """The same pairs, corrupted by a symbol that is no total in place of the written one."""
    other = Vocabulary.of(TASK).symbols.index("#")
    place = contrast.clean != contrast.corrupted
    return replace(contrast, corrupted=contrast.corrupted.masked_fill(place, other))


def test_noising_sees_neither_of_two_heads_that_stand_in_for_one_another():
    """Denoising sees both, and a greedy search keeps one of them; a joint circuit needs no more than one."""
    model, contrast = reader(TASK, "totals", (2, K), backup=True), forgotten(written())
    graph, known = Graph.of(model), (*WRITTEN, *BACKUP)
    noise, denoise = (edge_scores(model, contrast, direction=direction) for direction in ("noise", "denoise"))
    for edge in (*WRITTEN[:2], *BACKUP):
        assert noise.of(edge) == pytest.approx(0, abs=1e-4)
        assert denoise.of(edge) == pytest.approx(1, abs=1e-4)
    assert edge_auroc(denoise, known).auroc == 1.0
    assert edge_auroc(noise, known).auroc < 0.95
    assert edge_auroc(noise, known).missed
    kept = greedy_circuit(model, contrast)
    assert kept in (graph.parse(WRITTEN), graph.parse([*BACKUP, WRITTEN[2]]))


def test_a_backup_is_as_exact_as_the_reader_and_answers_both_where_the_two_differ():
    """Of two totals that differ each is answered: then both copies are seen, each with half of the change."""
    model, contrast = reader(TASK, "totals", (2, K), backup=True), written()
    found = edge_scores(model, contrast)
    assert [found.of(edge) for edge in (*WRITTEN[:2], *BACKUP)] == pytest.approx([0.5] * 4, abs=1e-4)


@pytest.mark.parametrize("method", ["eap", "eap-ig", "relp"])
def test_estimates_rank_the_edges_of_a_handmade_model_as_well_as_they_can(method):
    """Saturated attention and closed gates hide nothing here that the path of values does not show."""
    model, contrast = reader(TASK, "totals", (2, K), decoy=True), written()
    found = edge_scores(model, contrast, method=method)
    assert edge_auroc(found, WRITTEN).auroc >= 0.95


def test_a_ranking_turned_around_is_as_far_below_chance():
    model, contrast = reader(TASK, "totals", (2, K)), written()
    found = edge_scores(model, contrast, ranking="signed")
    turned = replace(found, change=-found.change)
    assert edge_auroc(found, WRITTEN).auroc + edge_auroc(turned, WRITTEN).auroc == pytest.approx(1)
    assert edge_auroc(turned, WRITTEN).auroc == 0
    with pytest.raises(KeyError, match="not among"):
        edge_auroc(found, ["L5H0->logits"])
    with pytest.raises(ValueError, match="nothing to tell apart"):
        edge_auroc(found, [])
