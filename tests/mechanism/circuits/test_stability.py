"""Agreement of rankings by hand, between draws and between runs; transfer of a known circuit."""

from dataclasses import replace

import numpy as np
import pytest

from cotinterp.calibration.ground_truth import K, handmade_models
from cotinterp.mechanism.circuits.graph import Graph
from cotinterp.mechanism.circuits.stability import CircuitTransfer, chance_jaccard, circuit_stability, circuit_transfer
from cotinterp.mechanism.contrast import Contrast
from cotinterp.studies.protocol import head_pairs
from tests.mechanism.circuits.made_up import CHAIN, GRAPH

EDGES = GRAPH.edges[:6]


def scored(means, spread=0.0, n=30, seed=0):
    """Scores of six edges over n examples, around these means."""
    noise = np.random.default_rng(seed).normal(size=(len(means), n))
    return np.array(means)[:, None] + spread * noise


def rows(result, **where):
    table = result.frame()
    for name, value in where.items():
        table = table[table[name] == value]
    return table


def test_scores_without_spread_give_the_same_circuit_in_every_draw():
    result = circuit_stability({"0": scored([6, 5, 4, 3, 2, 1.0])}, EDGES, sizes=(2, 3))
    agreement = result.frame()[["jaccard", "ci_low", "ci_high", "kendall", "spearman"]].to_numpy()
    np.testing.assert_allclose(agreement, 1)
    assert result.edge_frame()["edge"].tolist() == [edge.label for edge in EDGES[:2]]
    np.testing.assert_allclose(result.edge_frame()["selected"], 1)
    assert (result.edge_frame()["cv"] < 1e-12).all()


def test_noise_alone_agrees_as_much_as_chance():
    result = circuit_stability({"0": scored([0.0] * 6, spread=1.0, n=100)}, EDGES, sizes=(2,), n_pairs=200, seed=1)
    # Draws from one sample share its accidents, and agree a little more than draws of new problems would.
    (between,) = rows(result)["jaccard"]
    assert chance_jaccard(6, 2) < between < 0.6
    fresh = {str(seed): scored([0.0] * 6, spread=1.0, seed=seed) for seed in range(20)}
    runs = rows(circuit_stability(fresh, EDGES, sizes=(2,), n_pairs=2), comparison="runs")
    assert len(runs) == 20 * 19 / 2
    assert runs["jaccard"].mean() == pytest.approx(chance_jaccard(6, 2), abs=0.08)


def test_two_random_circuits_share_what_counting_says():
    """Two of four: of six equally likely second pairs one is the same, four share one of three, one shares none."""
    assert chance_jaccard(4, 2) == pytest.approx((1 + 4 / 3) / 6)
    assert chance_jaccard(5, 5) == pytest.approx(1)


def test_agreement_between_runs_by_hand():
    """First two of each: {0, 1} and {0, 2}; over 0, 1, 2 the ranks are 1 2 3 and 1 3 2: of three pairs two agree."""
    runs = {"0": scored([6, 5, 4, 0, 0, 0.0]), "1": scored([6, 4, 5, 0, 0, 0.0])}
    (row,) = rows(circuit_stability(runs, EDGES, sizes=(2,)), comparison="runs").to_dict("records")
    assert row["jaccard"] == pytest.approx(1 / 3)
    assert row["kendall"] == pytest.approx(1 / 3)
    assert row["spearman"] == pytest.approx(0.5)
    assert (row["run"], row["other"], row["n"]) == ("0", "1", 30)


def test_the_rule_of_the_ranking_decides_whether_large_negative_scores_are_among_the_first():
    means = [-9, 3, 2, 1, 0, 0.0]
    first = {
        absolute: set(
            circuit_stability({"0": scored(means)}, EDGES, sizes=(2,), absolute=absolute).edge_frame()["edge"]
        )
        for absolute in (True, False)
    }
    assert first[True] == {EDGES[0].label, EDGES[1].label}
    assert first[False] == {EDGES[1].label, EDGES[2].label}


def test_examples_of_one_problem_are_drawn_together():
    """Ten copies of three examples: as new problems they are thirty, and agreement between draws is overstated."""
    few = np.repeat(scored([1, 0.9, 0.8, 0.7, 0.6, 0.5], spread=1.0, n=3), 10, axis=1)
    number = np.repeat(np.arange(3), 10)
    apart = circuit_stability({"0": few}, EDGES, sizes=(2,), n_pairs=300)
    together = circuit_stability({"0": few}, EDGES, sizes=(2,), n_pairs=300, problems={"0": number})
    assert together.frame()["jaccard"][0] < apart.frame()["jaccard"][0] - 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": {}}, "no scores"),
        ({"scores": {"0": np.zeros((5, 4))}}, "5 rows of scores"),
        ({"scores": {"0": np.full((6, 4), np.nan)}}, "finite scores"),
        ({"scores": {"0": np.zeros((6, 1))}}, "two examples or more"),
        ({"sizes": (0, 7)}, r"sizes \[0, 7\] of 6"),
        ({"problems": {"0": np.zeros(30)}}, "two or more different"),
    ],
)
def test_bad_input_is_refused(changes, words):
    given = {"scores": {"0": scored([0.0] * 6)}, "edges": EDGES, "sizes": (2,), **changes}
    with pytest.raises(ValueError, match=words):
        circuit_stability(**given)


def test_figures_are_drawn():
    runs = {"0": scored([6, 5, 4, 0, 0, 0.0], 1.0), "1": scored([6, 4, 5, 0, 0, 0.0], 1.0, seed=1)}
    figure = circuit_stability(runs, EDGES, sizes=(1, 2, 4), labels={"task": "none"}).figure()
    assert {trace.name for trace in figure.data} == {"0, draws", "1, draws", "0 and 1, runs", "chance"}
    assert "none" in figure.layout.title.text


@pytest.fixture(scope="module")
def reader():
    """The reader with a decoy-free blueprint, its pairs of one written total, and the way of it."""
    (model,) = (model for model in handmade_models() if model.name == "reader (totals)")
    return model, Graph.of(model.model).parse(["embed->L1H0.v", "L1H0->L1.mlp", "L1.mlp->logits"])


def test_the_circuit_of_the_reader_is_the_same_at_every_length_and_not_that_of_an_operand(reader):
    model, edges = reader
    contrasts = {f"k = {k}": Contrast.from_pairs(head_pairs(model, 8, k=k)) for k in (3, K)}
    result = circuit_transfer(model.model, contrasts, edges, n_random=19)
    table = result.frame().set_index("contrast")
    assert table["faithfulness"].tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert table["without"].tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    assert (table["p"] <= 0.1).all()
    other = edges - Graph.of(model.model).parse(["embed->L1H0.v"]) | Graph.of(model.model).parse(["embed->L1H1.v"])
    assert circuit_transfer(model.model, contrasts, other).frame()["faithfulness"].tolist() == pytest.approx([0, 0])


def test_shares_of_the_gap_by_hand_and_why_there_are_none():
    scores = np.array([[2.0, 4.0], [0.0, 0.0], [1.0, 3.0], [0.5, 0.0], [0.0, 0.0], [2.0, 4.0]])
    known = CircuitTransfer(edges=tuple(sorted(CHAIN)), scores={"one": scores, "none": np.zeros((6, 2))})
    one, none = known.frame().to_dict("records")
    assert one["faithfulness"] == pytest.approx(4 / 6)
    assert one["without"] == pytest.approx(0.5 / 6)
    assert (one["random"], one["n"], one["note"]) == (pytest.approx(0.5), 2, "")
    assert one["p"] == pytest.approx(2 / 3), "one of two random circuits is as the model"
    assert np.isnan(none["faithfulness"])
    assert "has a gap" in none["note"]
    assert replace(known, labels={"task": "none"}).figure().data


def test_no_contrast_is_refused(reader):
    with pytest.raises(ValueError, match="no contrasts"):
        circuit_transfer(reader[0].model, {}, reader[1])
